import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { Server } from '@grpc/grpc-js';
import type { FairShare } from '../../session/fair-share.ts';
import type { ConnectionPacing } from './connection-pacing.ts';

/**
 * Streams that a client may open and reset at once, and how many more each second, before its connection is closed
 * with ENHANCE_YOUR_CALM (CVE-2023-44487). Node's own default burst of 1,000 fits in one read of a socket.
 */
const STREAM_RESET_BURST = 200;
const STREAM_RESETS_PER_SECOND = 200;
/** Between processes of the gateway a connection has the streams of many clients, each within its own limit. */
const NO_STREAM_LIMIT = 2 ** 32 - 1;
/** nghttp2's number for a peer that speaks no HTTP/2 at all: a probe, which costs nothing. */
const BAD_CLIENT_MAGIC = -903;

/** grpc-js makes its HTTP/2 servers by itself and has no options for this; these fields are the only handle. */
interface Internals {
  readonly commonServerOptions: object;
  _setupHandlers(http2Server: Http2Server, interceptors: unknown): void;
}

type OnStream = (stream: ServerHttp2Stream, ...rest: unknown[]) => void;
type OnConnection = (socket: Socket) => void;

/**
 * To be called before the server listens. Throws when grpc-js has no such fields any more. Returns what closes all
 * connections at once.
 */
export function shareHttp2(
  server: Server,
  fairShare: FairShare,
  pacing: ConnectionPacing,
  clients: 'callers' | 'peers' = 'callers',
): () => void {
  const internals: unknown = server;
  if (!hasInternals(internals)) throw new Error('grpc-js has changed: its HTTP/2 servers cannot be reached');
  Object.assign(internals.commonServerOptions, {
    streamResetBurst: STREAM_RESET_BURST,
    streamResetRate: STREAM_RESETS_PER_SECOND,
  });
  const sockets = new Set<Socket>();
  const setUp = internals._setupHandlers.bind(server);
  internals._setupHandlers = (http2Server, interceptors) => {
    setUp(http2Server, interceptors);
    for (const serve of http2Server.listeners('stream') as OnStream[]) {
      http2Server.off('stream', serve);
      http2Server.on('stream', inTurn(serve, fairShare));
    }
    pace(http2Server, pacing);
    http2Server.on('session', (session: ServerHttp2Session) => {
      if (clients === 'peers') session.settings({ maxConcurrentStreams: NO_STREAM_LIMIT });
    });
    // Not HTTP/2's sessions: those that were asked to close wait for their client, and a TLS handshake has none yet.
    http2Server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    });
  };
  return () => {
    for (const socket of sockets) socket.destroy();
  };
}

/** A socket that waits is not read from; what Node has taken in by then goes to HTTP/2 or TLS with the socket. */
function pace(http2Server: Http2Server, pacing: ConnectionPacing): void {
  const serve = http2Server.listeners('connection') as OnConnection[];
  http2Server.removeAllListeners('connection');
  http2Server.on('connection', (socket: Socket) => {
    const go = () => {
      for (const listener of serve) listener.call(http2Server, socket);
    };
    // Only a Unix socket has none.
    if (socket.remoteAddress === undefined) return go();
    socket.on('error', ignore);
    pacing.arrived(
      socket.remoteAddress,
      () => {
        if (!socket.destroyed) go();
      },
      () => socket.destroy(),
    );
  });
  http2Server.on('session', (session: ServerHttp2Session) => {
    const address = session.socket.remoteAddress;
    session.on('error', ({ code, errno }: NodeJS.ErrnoException) => {
      // Other codes are the network's: resets and time-outs.
      if (address === undefined || code !== 'ERR_HTTP2_ERROR' || errno === BAD_CLIENT_MAGIC) return;
      pacing.offended(address);
    });
  });
}

/** Connections get their streams served in turn, and one that was reset meanwhile costs nothing more. */
function inTurn(serve: OnStream, fairShare: FairShare): OnStream {
  return (stream, ...rest) => {
    // An error that nobody hears ends the process, and grpc-js does not listen to streams that it refuses.
    stream.on('error', ignore);
    if (gone(stream)) return;
    fairShare.run(stream.session ?? stream, () => {
      if (!gone(stream)) serve(stream, ...rest);
    });
  };
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
