import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { HostPort } from '../config/units.ts';
import { http } from '../ground/http.ts';
import { isLoopback } from '../ground/loopback.ts';
import { bearerMatches, hostAllowed } from './guard.ts';

/** What the admin server shows; it holds nothing itself. Nothing of it may contain content or secrets. */
export interface AdminSources {
  /** Why the gateway takes no new sessions; empty when it does. */
  notReady(): Promise<readonly string[]>;
  metrics(): Promise<{ readonly contentType: string; readonly body: string }>;
  /** One plain object per session. */
  sessions(): Promise<readonly object[]>;
  readonly logLevel: {
    get(): string;
    /** False: there is no such level. */
    set(level: string): boolean;
    readonly levels: readonly string[];
  };
}

export interface AdminOptions {
  readonly listen: HostPort;
  /** Host names beside localhost and IP addresses. */
  readonly allowedHosts: readonly string[];
  /** The bearer token in force; undefined: none is set. */
  readonly token: () => string | undefined;
  readonly sources: AdminSources;
}

export interface AdminServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Requests here are small; whoever takes longer is not a tool of ours. */
const REQUEST_TIMEOUT_MS = 10_000;
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_BODY_BYTES = 1024;

const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
} as const;

/** Starts the admin HTTP server. Rejects when the address cannot be had. */
export async function startAdmin(options: AdminOptions): Promise<AdminServer> {
  const server = http.createServer(
    {
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
      requireHostHeader: false,
    },
    (request, response) => {
      void answer(options, request).then(
        (reply) => send(request, response, reply),
        () => send(request, response, problem(500, 'internal error')),
      );
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.listen.port, options.listen.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

interface Reply {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Route {
  /** Open routes tell nothing about callers; the others want the token, or a loopback address. */
  readonly open: boolean;
  readonly methods: Readonly<
    Record<string, (options: AdminOptions, request: IncomingMessage) => Promise<Reply>>
  >;
}

const ROUTES: Readonly<Record<string, Route>> = {
  '/healthz': { open: true, methods: { GET: async () => plain(200, 'ok') } },
  '/readyz': { open: true, methods: { GET: async ({ sources }) => readiness(await sources.notReady()) } },
  '/metrics': {
    open: true,
    methods: { GET: async ({ sources }) => ({ status: 200, ...(await sources.metrics()) }) },
  },
  '/sessions': {
    open: false,
    methods: { GET: async ({ sources }) => json(200, { sessions: await sources.sessions() }) },
  },
  '/loglevel': {
    open: false,
    methods: {
      GET: async ({ sources }) => json(200, { level: sources.logLevel.get() }),
      PUT: async ({ sources }, request) => setLogLevel(sources.logLevel, await readBody(request)),
    },
  },
};

async function answer(options: AdminOptions, request: IncomingMessage): Promise<Reply> {
  const path = pathOf(request.url ?? '/');
  const route = path === undefined ? undefined : ROUTES[path];
  const host = request.headers.host ?? '';
  // HAProxy's health checks send none. Browsers, which the check is about, always do.
  const isProbe = host === '' && route?.open === true;
  if (!isProbe && !hostAllowed(host, options.allowedHosts)) {
    return problem(421, 'unknown Host header; add the name to admin.allowed_hosts');
  }
  if (route === undefined) {
    return problem(404, `no such path; there is ${Object.keys(ROUTES).join(', ')}`);
  }
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
  return handler(options, request);
}

/** Undefined: no address at all. `//` begins a host name, and a proxy's clients send whole addresses. */
function pathOf(target: string): string | undefined {
  return URL.parse(target, 'http://admin')?.pathname;
}

function authorize({ token, listen }: AdminOptions, request: IncomingMessage): Reply | undefined {
  const expected = token();
  if (expected === undefined) {
    return isLoopback(listen.host)
      ? undefined
      : problem(403, 'set admin.token_file to use this path from outside');
  }
  if (bearerMatches(request.headers.authorization, expected)) return undefined;
  return { ...problem(401, 'a bearer token is needed'), headers: { 'www-authenticate': 'Bearer' } };
}

function readiness(reasons: readonly string[]): Reply {
  return reasons.length === 0 ? plain(200, 'ready') : plain(503, `not ready: ${reasons.join('; ')}`);
}

function setLogLevel(logLevel: AdminSources['logLevel'], body: string | undefined): Reply {
  const level = body === undefined ? undefined : levelOf(body);
  if (level === undefined || !logLevel.set(level)) {
    return problem(400, `the body is a level, or {"level": …}: ${logLevel.levels.join(', ')}`);
  }
  return json(200, { level });
}

/** Both `debug` and `{"level":"debug"}`. */
function levelOf(body: string): string | undefined {
  const text = body.trim();
  if (!text.startsWith('{')) return text;
  try {
    const level: unknown = (JSON.parse(text) as Record<string, unknown>).level;
    return typeof level === 'string' ? level : undefined;
  } catch {
    return undefined;
  }
}

async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function send(request: IncomingMessage, response: ServerResponse, reply: Reply): void {
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

function plain(status: number, text: string): Reply {
  return { status, contentType: 'text/plain; charset=utf-8', body: `${text}\n` };
}

function json(status: number, value: unknown): Reply {
  return { status, contentType: 'application/json; charset=utf-8', body: `${JSON.stringify(value)}\n` };
}

function problem(status: number, error: string): Reply {
  return json(status, { error });
}
