import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';

/** How a connection begins. */
export type Opening = 'tls' | 'http2' | 'http1' | 'proxy';

/** For logs. */
export const OPENING_NAMES: Readonly<Record<Opening, string>> = {
  tls: 'TLS',
  http2: 'HTTP/2 without TLS',
  http1: 'HTTP/1.1',
  proxy: 'the PROXY protocol',
};

/** Whoever waits for the other side to begin gets what it waits for after this. */
const FIRST_BYTES_MS = 5_000;
/** What a peer may take to read why it is refused. */
const FAREWELL_MS = 2_000;

const PREFACE = 'PRI * HTTP/2.0\r\n';
const PROXY_V2 = '\r\n\r\n\0\r\nQUIT\n';
const MAX_METHOD_LENGTH = 16;
/** A fatal alert: `unexpected_message`. OpenSSL and Go name it, and it means nothing else in a handshake that begins. */
const TLS_ALERT = Buffer.from([0x15, 3, 1, 0, 2, 2, 10]);
/** gRPC's FAILED_PRECONDITION: the same call will never work there, so that clients do not repeat it. */
const FAILED_PRECONDITION = '9';
/** Of HTTP/2: the answer stands, the rest of the request is not wanted. */
const NO_ERROR = 0;

/** `unknown`: none of them. Undefined: too little to tell. */
export function openingOf(bytes: Buffer): Opening | 'unknown' | undefined {
  const text = bytes.toString('latin1', 0, 64);
  if (text === '') return undefined;
  if (bytes[0] === 0x16) return bytes.length < 2 ? undefined : bytes[1] === 3 ? 'tls' : 'unknown';
  if (begins(text, PROXY_V2)) return text.length < PROXY_V2.length ? undefined : 'proxy';
  if (begins(text, PREFACE)) return text.length < PREFACE.length ? undefined : 'http2';
  const [method = ''] = /^[A-Z]*/.exec(text) ?? [];
  if (method === '' || method.length > MAX_METHOD_LENGTH) return 'unknown';
  if (method === text) return undefined;
  if (text[method.length] !== ' ') return 'unknown';
  return method === 'PROXY' ? 'proxy' : 'http1';
}

function begins(text: string, whole: string): boolean {
  return whole.startsWith(text) || text.startsWith(whole);
}

/**
 * Looks at the first bytes of a socket that nobody reads yet, and leaves them there. Calls once, with undefined for what
 * it does not know and for who says nothing; not at all for a socket that ends before.
 */
export function watchOpening(socket: Socket, onOpening: (opening: Opening | undefined) => void): void {
  let seen: Buffer = Buffer.alloc(0);
  const decide = (opening: Opening | undefined): void => {
    clearTimeout(timer);
    socket.off('readable', look);
    socket.off('close', stop);
    if (seen.length > 0) socket.unshift(seen);
    onOpening(opening);
  };
  const look = (): void => {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) return;
    seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
    const opening = openingOf(seen);
    if (opening !== undefined) decide(opening === 'unknown' ? undefined : opening);
  };
  const stop = (): void => clearTimeout(timer);
  const timer = setTimeout(decide, FIRST_BYTES_MS, undefined).unref();
  socket.once('close', stop);
  socket.on('readable', look);
}

/** Says why to a peer that speaks another protocol than the port, in its own, and closes. `sentence` is ASCII. */
export function refuseOpening(socket: Socket, opening: Opening, sentence: string): void {
  socket.on('error', ignore);
  const timer = setTimeout(() => socket.destroy(), FAREWELL_MS).unref();
  socket.once('close', () => clearTimeout(timer));
  switch (opening) {
    case 'proxy':
      socket.destroy();
      return;
    case 'http2':
      return refuseOverHttp2(socket, sentence);
    case 'tls':
      socket.end(TLS_ALERT);
      break;
    case 'http1':
      socket.end(badRequest(sentence));
  }
  // What is left unread would make the close a reset, which takes the answer from the peer.
  socket.resume();
}

function badRequest(sentence: string): string {
  const body = `${sentence}\n`;
  return [
    'HTTP/1.1 400 Bad Request',
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${body.length}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n');
}

function refuseOverHttp2(socket: Socket, sentence: string): void {
  // `node:http2` only where it is needed: the admin port has no other use for it.
  const session = process.getBuiltinModule('node:http2').performServerHandshake(socket);
  session.on('error', ignore);
  session.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    stream.once('close', () => session.close());
    answerInWords(stream, headers, 400, sentence);
  });
}

/** The answer to a request that this server has nothing for: a gRPC status for gRPC, text for the rest. */
export function answerInWords(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  httpStatus: number,
  sentence: string,
): void {
  stream.on('error', ignore);
  stream.resume();
  if (isGrpc(headers)) {
    const status = { 'grpc-status': FAILED_PRECONDITION, 'grpc-message': sentence };
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...status }, { endStream: true });
  } else {
    stream.respond({ ':status': httpStatus, 'content-type': 'text/plain; charset=utf-8' });
    stream.end(`${sentence}\n`);
  }
  // Behind the answer: whatever else the request has to say.
  stream.close(NO_ERROR);
}

/** `application/grpc` and its formats; not gRPC-Web, whose statuses come another way. */
export function isGrpc(headers: IncomingHttpHeaders): boolean {
  return /^application\/grpc(?:$|[+;])/.test(String(headers['content-type'] ?? ''));
}

function ignore(): void {}
