import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { HostPort } from '../config/units.ts';
import { http } from '../ground/http.ts';
import { isLoopback } from '../ground/loopback.ts';
import { OPENING_NAMES, type Opening, refuseOpening, watchOpening } from '../ground/opening.ts';
import type { AuditRecord, LogLevel } from './acts.ts';
import type { BoardView } from './api.ts';
import { CONSOLE_PATHS } from './console-files.ts';
import { bearerMatches, hostAllowed } from './guard.ts';
import { LiveBoard } from './live-board.ts';
import { problem, type Reply, type StreamReply } from './reply.ts';
import { boardFacts, PATHS, routeOf } from './routes.ts';
import { board } from './session-routes.ts';
import type { SessionSource } from './source.ts';

/** What the admin server shows and does; it holds nothing itself. Nothing of it may contain content or secrets. */
export interface AdminSources {
  /** Why the gateway takes no new sessions; empty when it does. */
  notReady(): Promise<readonly string[]>;
  metrics(): Promise<{ readonly contentType: string; readonly body: string }>;
  readonly sessions: SessionSource;
  /** Which replica this is. */
  replica(): BoardView['replica'];
  readonly logLevel: LogLevel;
  /** Begins what SIGTERM begins. Undefined: whoever started this gateway ends it by other means. */
  readonly drain: (() => void) | undefined;
  audit(record: AuditRecord): void;
}

export interface AdminOptions {
  readonly listen: HostPort;
  /** Host names beside localhost and IP addresses. */
  readonly allowedHosts: readonly string[];
  /** The bearer token in force; undefined: none is set. */
  readonly token: () => string | undefined;
  /** Serve the page. Default true. */
  readonly console?: boolean;
  readonly sources: AdminSources;
  /** Told of each peer that speaks something else than HTTP/1.1, and what it was told. */
  readonly onWrongProtocol?: (found: string, sentence: string) => void;
}

export interface AdminServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Requests here are small; whoever takes longer is not a tool of ours. */
const REQUEST_TIMEOUT_MS = 10_000;
/** For answers that are being written when the server closes. */
const CLOSE_TIMEOUT_MS = 500;
const CLOSE_IDLE_MS = 10;
const MAX_HEADER_BYTES = 8 * 1024;

const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cache-control': 'no-store',
} as const;

/** Starts the admin HTTP server. Rejects when the address cannot be had. */
export async function startAdmin(options: AdminOptions): Promise<AdminServer> {
  const live = new LiveBoard(() => board(boardFacts(options.sources)));
  const server = http.createServer(
    {
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
      requireHostHeader: false,
    },
    (request, response) => {
      void answer(options, live, request).then(
        (reply) => send(request, response, reply),
        () => send(request, response, problem(500, 'internal error')),
      );
    },
  );
  const undecided = onlyHttp1(server, options.onWrongProtocol ?? (() => {}));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.listen.port, options.listen.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        live.close();
        // An answer that is on its way, such as the last scrape, gets there.
        const timer = setInterval(() => server.closeIdleConnections(), CLOSE_IDLE_MS);
        const deadline = setTimeout(() => server.closeAllConnections(), CLOSE_TIMEOUT_MS);
        server.close(() => {
          clearInterval(timer);
          clearTimeout(deadline);
          resolve();
        });
        for (const socket of undecided) socket.destroy();
      }),
  };
}

const WRONG_PROTOCOLS: Readonly<Partial<Record<Opening, string>>> = {
  tls: 'This is the admin port, which speaks HTTP/1.1 without TLS; found TLS. Use http://.',
  http2:
    'This is the admin port, which speaks HTTP/1.1; found HTTP/2. gRPC is on the port of "listen", 50051 by default.',
  proxy: 'This port does not take the PROXY protocol: turn it off in the balancer.',
};

/** Returns the sockets that are not the HTTP server's yet, or will never be. */
function onlyHttp1(server: Server, onWrong: (found: string, sentence: string) => void): ReadonlySet<Socket> {
  const undecided = new Set<Socket>();
  const serve = server.listeners('connection') as ((socket: Socket) => void)[];
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    socket.on('error', () => {});
    undecided.add(socket);
    socket.once('close', () => undecided.delete(socket));
    watchOpening(socket, (opening) => {
      const sentence = opening && WRONG_PROTOCOLS[opening];
      if (opening !== undefined && sentence !== undefined) {
        onWrong(OPENING_NAMES[opening], sentence);
        return refuseOpening(socket, opening, sentence);
      }
      undecided.delete(socket);
      for (const listener of serve) listener.call(server, socket);
    });
  });
  return undecided;
}

async function answer(
  options: AdminOptions,
  live: LiveBoard,
  request: IncomingMessage,
): Promise<Reply | StreamReply> {
  const url = urlOf(request.url ?? '/');
  const found = url === undefined ? undefined : routeOf(url.pathname);
  const host = request.headers.host ?? '';
  // HAProxy's health checks send none. Browsers, which the check is about, always do.
  const isProbe = host === '' && found?.route.open === true;
  if (!isProbe && !hostAllowed(host, options.allowedHosts)) {
    return problem(421, 'unknown Host header; add the name to admin.allowed_hosts', 'host');
  }
  const shown = options.console === false ? PATHS.filter((path) => !CONSOLE_PATHS.includes(path)) : PATHS;
  const hidden = options.console === false && url !== undefined && CONSOLE_PATHS.includes(url.pathname);
  if (url === undefined || found === undefined || hidden) {
    return problem(404, `no such path; there is ${shown.join(', ')}`);
  }
  const { route, parts } = found;
  if (!route.open) {
    const refusal = authorize(options, request);
    if (refusal !== undefined) return refusal;
  }
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  const handler = Object.hasOwn(route.methods, method) ? route.methods[method] : undefined;
  if (handler === undefined) {
    const allow = Object.keys(route.methods).join(', ');
    return { ...problem(405, `allowed here: ${allow}`), headers: { allow } };
  }
  return handler({ sources: options.sources, request, query: url.searchParams, parts, live });
}

/** Undefined: no address at all. `//` begins a host name, and a proxy's clients send whole addresses. */
function urlOf(target: string): URL | undefined {
  return URL.parse(target, 'http://admin') ?? undefined;
}

function authorize({ token, listen }: AdminOptions, request: IncomingMessage): Reply | undefined {
  let expected: string | undefined;
  try {
    expected = token();
  } catch {
    return problem(500, 'the file of admin.token_file cannot be read', 'admin.token_file');
  }
  if (expected === undefined) {
    return isLoopback(listen.host)
      ? undefined
      : problem(403, 'set admin.token_file to use this path from outside', 'admin.token_file');
  }
  if (bearerMatches(request.headers.authorization, expected)) return undefined;
  return {
    ...problem(401, 'a bearer token is needed', 'authorization'),
    headers: { 'www-authenticate': 'Bearer' },
  };
}

function send(request: IncomingMessage, response: ServerResponse, reply: Reply | StreamReply): void {
  if ('open' in reply) {
    response.writeHead(reply.status, { ...SECURITY_HEADERS, 'content-type': reply.contentType });
    if (request.method === 'HEAD') response.end();
    else reply.open(response);
    return;
  }
  const body = Buffer.from(reply.body);
  response.writeHead(reply.status, {
    ...SECURITY_HEADERS,
    ...reply.headers,
    'content-type': reply.contentType,
    'content-length': body.length,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
  // Whatever is left of a body that nobody wanted.
  request.resume();
}
