import type { ClientRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { http } from '../ground/http.ts';
import type { ConnectOptions } from './network.ts';
import { OutgoingText } from './outgoing-text.ts';

/** A text in parts, and how many bytes they have together. */
export interface LongBody {
  readonly parts: readonly string[];
  readonly bytes: number;
}

export interface PostOptions {
  /** Default POST. */
  readonly method?: 'GET' | 'POST' | 'DELETE';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly connect: ConnectOptions;
  readonly accept: 'application/json' | 'text/event-stream';
  /** JSON; none: undefined. */
  readonly body: string | LongBody | undefined;
}

/** Starts a request. Redirects are answers like any other: nothing follows them. */
export function post({ method = 'POST', url, headers, connect, accept, body }: PostOptions): ClientRequest {
  const long = typeof body === 'object' && body.bytes >= LONG_BODY_BYTES ? body : undefined;
  const text = typeof body === 'object' ? (long === undefined ? body.parts.join('') : undefined) : body;
  const bytes = text === undefined ? undefined : Buffer.from(text, 'utf8');
  const length = long?.bytes ?? bytes?.length;
  const start = url.protocol === 'https:' ? httpsRequest : http.request;
  const request = start(url, {
    ...connect,
    method,
    headers: {
      ...headers,
      Accept: accept,
      ...(length !== undefined && {
        'Content-Type': 'application/json',
        'Content-Length': String(length),
      }),
    },
  });
  if (long === undefined) request.end(bytes);
  else writeInPieces(request, new OutgoingText(long.parts, PIECE_BYTES));
  return request;
}

/** To encode and hand over megabytes takes tens of milliseconds: others have their turn between two pieces of it. */
function writeInPieces(request: ClientRequest, text: OutgoingText): void {
  if (request.destroyed) return;
  const hasRoom = request.write(text.next());
  if (text.isDone) request.end();
  else if (hasRoom) setImmediate(() => writeInPieces(request, text));
  else request.once('drain', () => setImmediate(() => writeInPieces(request, text)));
}

const LONG_BODY_BYTES = 1024 * 1024;
const PIECE_BYTES = 256 * 1024;

/** Calls back once a connection stands, encrypted if it has to be; only then can the request have been sent. */
export function onConnected(request: ClientRequest, secure: boolean, connected: () => void): void {
  request.once('socket', (socket) => {
    if (!socket.connecting) connected();
    else socket.once(secure ? 'secureConnect' : 'connect', connected);
  });
}
