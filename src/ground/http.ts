/**
 * node:http. An `import` of it reads each of its names to make them bindings, and one of those names loads Node's fetch and
 * WebSocket client: 25 ms and 6 MB of every start, for nothing (Node 24.21).
 */
export const http = process.getBuiltinModule('node:http');
