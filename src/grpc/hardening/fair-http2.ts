import {
  constants,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import type { Server } from '@grpc/grpc-js';
import type { FairShare } from '../../session/fair-share.ts';
import type { ConnectionPacing } from './connection-pacing.ts';
import type { Connections } from './connections.ts';
import { capDeadline } from './deadline.ts';
import { adaptWindows, WIDE_WINDOW_BYTES } from './windows.ts';
import {
  type OnWrongProtocol,
  refuseRequest,
  refuseWithoutAlpn,
  serveRightProtocol,
} from './wrong-protocol.ts';

/** Resets before service that are forgiven each second, as a share of those that a connection may have at once. */
const FORGIVEN_PER_SECOND = 0.2;
/**
 * nghttp2's own limit counts served streams as well. It stands above what honest clients do, who share the connection
 * of a proxy and may all end at once: so many times the streams of a connection at once, and once as many each second.
 */
const RESET_BURSTS = 2;
/** nghttp2's number for a peer that speaks no HTTP/2 at all: a probe, which costs nothing. */
const BAD_CLIENT_MAGIC = -903;
/**
 * nghttp2's number for a frame that should not be. grpc-go (1.85) ends each connection with one: its GOAWAY names a stream of
 * its own. A client that ends its connection so has done no more than one that closes it.
 */
const WRONG_FRAME = -505;
/** For a connection between processes of the gateway: each client was held to its limits before. */
const NO_LIMIT = 2 ** 32 - 1;

/** Why a client's connection was ended or refused. */
export type ConnectionEnd =
  /** There were as many as there may be, each with a stream. */
  | 'limit'
  /** It had no stream for too long, or another needed its place. */
  | 'idle'
  /** Too many of its streams were reset before they were served. */
  | 'resets'
  /** It broke HTTP/2, or nghttp2's own limits. */
  | 'protocol'
  /** Too many others of its address wait, whose connections were ended for breaking HTTP/2. */
  | 'pacing';

export interface Http2SharingOptions {
  readonly fairShare: FairShare;
  readonly pacing: ConnectionPacing;
  /** Undefined between processes of the gateway, where a connection has the streams of many clients. */
  readonly connections: Connections | undefined;
  readonly maxStreamsPerConnection: number;
  /** Streams of a connection that may be reset before they are served, at once; above it the connection ends. */
  readonly maxUnservedResets: number;
  readonly now: () => number;
  readonly onEnded: (reason: ConnectionEnd) => void;
  readonly onWrongProtocol: OnWrongProtocol;
}

/** grpc-js makes its HTTP/2 servers by itself and has no options for this; these fields are the only handle. */
interface Internals {
  readonly commonServerOptions: { settings?: object };
  _setupHandlers(http2Server: Http2Server, interceptors: unknown): void;
}

type OnStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, ...rest: unknown[]) => void;
type OnConnection = (socket: Socket) => void;

/**
 * To be called before the server listens. Throws when grpc-js has no such fields any more. Returns what closes all
 * connections at once.
 */
export function shareHttp2(server: Server, options: Http2SharingOptions): () => void {
  const internals: unknown = server;
  if (!hasInternals(internals)) throw new Error('grpc-js has changed: its HTTP/2 servers cannot be reached');
  const { connections, maxStreamsPerConnection: maxStreams, maxUnservedResets } = options;
  Object.assign(
    internals.commonServerOptions,
    connections === undefined
      ? { streamResetBurst: NO_LIMIT, streamResetRate: NO_LIMIT }
      : {
          streamResetBurst: RESET_BURSTS * Math.max(maxStreams, maxUnservedResets),
          streamResetRate: maxStreams,
        },
  );
  const { settings } = internals.commonServerOptions;
  internals.commonServerOptions.settings = { ...settings, initialWindowSize: WIDE_WINDOW_BYTES };
  const sockets = new Set<Socket>();
  const cutShort = new WeakSet<ServerHttp2Session>();
  const setUp = internals._setupHandlers.bind(server);
  internals._setupHandlers = (http2Server, interceptors) => {
    setUp(http2Server, interceptors);
    takeTurns(http2Server, options, cutShort);
    pace(http2Server, options, cutShort);
    refuseWithoutAlpn(http2Server, options.onWrongProtocol);
    http2Server.on('session', adaptWindows);
    http2Server.on('session', (session: ServerHttp2Session) => {
      if (connections === undefined) session.settings({ maxConcurrentStreams: NO_LIMIT });
      else connections.opened(session);
    });
    // Not HTTP/2's sessions: those that were asked to close wait for their client, and a TLS handshake has none yet.
    http2Server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    });
  };
  return () => {
    connections?.close();
    for (const socket of sockets) socket.destroy();
  };
}

/** Sessions that ended by an error while calls ran. */
type CutShort = WeakSet<ServerHttp2Session>;

/** A socket that waits is not read from; what Node has taken in by then goes to HTTP/2 or TLS with the socket. */
function pace(http2Server: Http2Server, options: Http2SharingOptions, cutShort: CutShort): void {
  const { connections, pacing, onEnded, onWrongProtocol } = options;
  const serve = http2Server.listeners('connection') as OnConnection[];
  http2Server.removeAllListeners('connection');
  http2Server.on('connection', (socket: Socket) => {
    const go = () => {
      for (const listener of serve) listener.call(http2Server, socket);
    };
    // Only a Unix socket has none.
    if (socket.remoteAddress === undefined) return go();
    socket.on('error', ignore);
    if (connections?.arrived(socket) === false) return;
    pacing.arrived(
      socket.remoteAddress,
      () => {
        if (!socket.destroyed) serveRightProtocol(http2Server, socket, onWrongProtocol, go);
      },
      () => {
        socket.destroy();
        onEnded('pacing');
      },
    );
  });
  http2Server.on('session', (session: ServerHttp2Session) => {
    const address = session.socket.remoteAddress;
    session.on('error', ({ code, errno }: NodeJS.ErrnoException) => {
      // Other codes are the network's: resets and time-outs.
      if (address === undefined || code !== 'ERR_HTTP2_ERROR' || errno === BAD_CLIENT_MAGIC) return;
      if (errno === WRONG_FRAME && !cutShort.has(session)) return;
      if (errno !== WRONG_FRAME) pacing.offended(address);
      onEnded('protocol');
    });
  });
}

/**
 * Connections get their streams served in turn, and one that was reset meanwhile costs nothing more. Opening and
 * resetting is all that such a stream did (CVE-2023-44487), so only these count against their connection: a client that
 * gives up its running calls, or dies behind a proxy that others use too, breaks nothing.
 */
function takeTurns(http2Server: Http2Server, options: Http2SharingOptions, cutShort: CutShort): void {
  const { connections, fairShare, pacing, maxUnservedResets, now, onEnded, onWrongProtocol } = options;
  const budgets = new WeakMap<ServerHttp2Session, ResetBudget>();
  const sessionOf = new WeakMap<ServerHttp2Stream, ServerHttp2Session>();
  http2Server.on('session', (session: ServerHttp2Session) => {
    // A stream that is gone no longer says whose it was.
    session.prependListener('stream', (stream: ServerHttp2Stream) => sessionOf.set(stream, session));
  });
  const wasReset = (stream: ServerHttp2Stream) => {
    const session = sessionOf.get(stream);
    if (connections === undefined || session === undefined || session.destroyed) return;
    const budget = budgets.get(session) ?? new ResetBudget(maxUnservedResets, now());
    budgets.set(session, budget);
    if (budget.take(now())) return;
    const { remoteAddress } = session.socket;
    session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
    if (remoteAddress !== undefined) pacing.offended(remoteAddress);
    onEnded('resets');
  };
  function noteError(this: ServerHttp2Stream, { code }: NodeJS.ErrnoException): void {
    const session = sessionOf.get(this);
    if (session !== undefined && code === 'ERR_HTTP2_ERROR') cutShort.add(session);
  }
  const spokeWrong = new WeakSet<ServerHttp2Session>();
  /** A connection is told of once, however many requests it makes. */
  const tellOnce = (stream: ServerHttp2Stream, found: string, sentence: string) => {
    const session = sessionOf.get(stream);
    if (session === undefined || spokeWrong.has(session)) return;
    spokeWrong.add(session);
    onWrongProtocol(found, sentence);
  };
  for (const serve of http2Server.listeners('stream') as OnStream[]) {
    http2Server.off('stream', serve);
    http2Server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, ...rest) => {
      capDeadline(headers);
      // An error that nobody hears ends the process, and grpc-js does not listen to streams that it refuses.
      stream.on('error', noteError);
      if (gone(stream)) return wasReset(stream);
      fairShare.run(sessionOf.get(stream) ?? stream, () => {
        if (gone(stream)) wasReset(stream);
        else if (!refuseRequest(stream, headers, (...words) => tellOnce(stream, ...words)))
          serve(stream, headers, ...rest);
      });
    });
  }
}

class ResetBudget {
  readonly #max: number;
  #left: number;
  #atMs: number;

  constructor(max: number, nowMs: number) {
    this.#max = max;
    this.#left = max;
    this.#atMs = nowMs;
  }

  take(nowMs: number): boolean {
    const forgiven = ((nowMs - this.#atMs) / 1_000) * this.#max * FORGIVEN_PER_SECOND;
    this.#left = Math.min(this.#max, this.#left + forgiven) - 1;
    this.#atMs = nowMs;
    return this.#left >= 0;
  }
}

function gone(stream: ServerHttp2Stream): boolean {
  return stream.closed || stream.destroyed;
}

function ignore(): void {}

function hasInternals(server: unknown): server is Internals {
  return (
    typeof server === 'object' &&
    server !== null &&
    'commonServerOptions' in server &&
    typeof server.commonServerOptions === 'object' &&
    '_setupHandlers' in server &&
    typeof server._setupHandlers === 'function'
  );
}
