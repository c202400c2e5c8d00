import type { IncomingMessage } from 'node:http';
import { cancelTurn, changeLogLevel, drainProcess, drainSession, putLogLevel } from './acts.ts';
import { CONSOLE_PATHS, consoleFile } from './console-files.ts';
import type { LiveBoard } from './live-board.ts';
import { json, plain, type Reply, type StreamReply } from './reply.ts';
import type { AdminSources } from './server.ts';
import { listSessions, listTurns, showOverview, showSession } from './session-routes.ts';

export interface Asked {
  readonly sources: AdminSources;
  readonly request: IncomingMessage;
  readonly query: URLSearchParams;
  /** What stands at the places of `{…}` in the path. */
  readonly parts: Readonly<Record<string, string>>;
  readonly live: LiveBoard;
}

export interface Route {
  /** Open routes tell nothing about callers; the others want the token, or a loopback address. */
  readonly open: boolean;
  readonly methods: Readonly<Record<string, (asked: Asked) => Promise<Reply | StreamReply>>>;
}

const page = (path: string): Route => ({ open: true, methods: { GET: async () => consoleFile(path) } });

const ROUTES: Readonly<Record<string, Route>> = {
  '/healthz': { open: true, methods: { GET: async () => plain(200, 'ok') } },
  '/readyz': {
    open: true,
    methods: { GET: async ({ sources }) => readiness(await sources.notReady()) },
  },
  '/metrics': {
    open: true,
    methods: { GET: async ({ sources }) => ({ status: 200, ...(await sources.metrics()) }) },
  },
  ...Object.fromEntries(CONSOLE_PATHS.map((path) => [path, page(path)])),
  '/overview': {
    open: false,
    methods: { GET: async ({ sources, query }) => showOverview(boardFacts(sources), query) },
  },
  '/overview/stream': { open: false, methods: { GET: async ({ live }) => live.reply() } },
  '/sessions': {
    open: false,
    methods: { GET: async ({ sources, query }) => listSessions(sources.sessions, query) },
  },
  '/sessions/{id}': {
    open: false,
    methods: {
      GET: async ({ sources, parts, query }) => showSession(sources.sessions, part(parts, 'id'), query),
    },
  },
  '/sessions/{id}/turns': {
    open: false,
    methods: {
      GET: async ({ sources, parts, query }) => listTurns(sources.sessions, part(parts, 'id'), query),
    },
  },
  '/sessions/{id}/turns/{turnId}/cancel': {
    open: false,
    methods: {
      POST: async ({ sources, request, parts }) =>
        cancelTurn(sources, request, part(parts, 'id'), part(parts, 'turnId')),
    },
  },
  '/sessions/{id}/drain': {
    open: false,
    methods: {
      POST: async ({ sources, request, parts }) => drainSession(sources, request, part(parts, 'id')),
    },
  },
  '/drain': {
    open: false,
    methods: { POST: async ({ sources, request }) => drainProcess(sources, request) },
  },
  '/loglevel': {
    open: false,
    methods: {
      GET: async ({ sources }) => json(200, { level: sources.logLevel.get() }),
      PUT: async ({ sources, request }) => putLogLevel(sources, request),
      POST: async ({ sources, request }) => changeLogLevel(sources, request),
    },
  },
};

export const PATHS: readonly string[] = Object.keys(ROUTES);

export function boardFacts({ sessions, notReady, replica }: AdminSources) {
  return { source: sessions, notReady, replica };
}

/** Undefined: there is no such path. */
export function routeOf(path: string): { readonly route: Route; readonly parts: Asked['parts'] } | undefined {
  const exact = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
  if (exact !== undefined) return { route: exact, parts: {} };
  for (const { pattern, route } of PATTERNS) {
    const groups = pattern.exec(path)?.groups;
    const parts = groups && decoded(groups);
    if (parts !== undefined) return { route, parts };
  }
  return undefined;
}

const PATTERNS = Object.entries(ROUTES)
  .filter(([path]) => path.includes('{'))
  .map(([path, route]) => ({
    pattern: new RegExp(`^${path.replaceAll(/\{(\w+)\}/g, '(?<$1>[^/]{1,512})')}$`),
    route,
  }));

function decoded(groups: Readonly<Record<string, string>>): Record<string, string> | undefined {
  try {
    return Object.fromEntries(
      Object.entries(groups).map(([name, value]) => [name, decodeURIComponent(value)]),
    );
  } catch {
    return undefined;
  }
}

function part(parts: Asked['parts'], name: string): string {
  return parts[name] ?? '';
}

function readiness(reasons: readonly string[]): Reply {
  return reasons.length === 0 ? plain(200, 'ready') : plain(503, `not ready: ${reasons.join('; ')}`);
}
