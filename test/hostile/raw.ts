/** HTTP/2 without the manners of a gRPC library. */
import { once } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';

export const CONNECT_PATH = '/responses.gateway.v1.ResponsesService/Connect';

export async function openHttp2(
  port: number,
  options: { readonly window?: number } = {},
): Promise<ClientHttp2Session> {
  const session = connectHttp2(`http://127.0.0.1:${port}`, {
    ...(options.window === undefined ? {} : { settings: { initialWindowSize: options.window } }),
    maxSendHeaderBlockLength: 1024 * 1024,
    // Megabytes; Node would end the attack at 10 for our sake.
    maxSessionMemory: 4_096,
  });
  session.on('error', () => {});
  await new Promise<void>((resolve) => {
    session.once('connect', () => resolve());
    session.once('close', () => resolve());
  });
  return session;
}

export function openCall(
  session: ClientHttp2Session,
  headers: Readonly<Record<string, string | string[]>>,
): ClientHttp2Stream {
  const stream = session.request({
    ':method': 'POST',
    ':path': CONNECT_PATH,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  stream.on('error', () => {});
  stream.resume();
  return stream;
}

/** How the call was answered: a gRPC status, or an HTTP/2 reset without one. Does not wait for a stream to leave. */
export function outcomeOf(stream: ClientHttp2Stream): Promise<string> {
  return new Promise((resolve) => {
    const look = (headers: Readonly<Record<string, unknown>>) => {
      if (headers['grpc-status'] !== undefined) resolve(`status ${String(headers['grpc-status'])}`);
    };
    stream.on('response', look);
    stream.on('trailers', look);
    const closed = () => resolve(`reset ${stream.rstCode}`);
    if (stream.closed) closed();
    else stream.once('close', closed);
  });
}

/** A gRPC message frame; `length` may lie. */
export function grpcFrame(bytes: Uint8Array, length = bytes.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, bytes]);
}

/** Sends a request whose header block is written by hand, so that nobody checks it. */
export async function sendRawHeaders(
  port: number,
  headers: readonly (readonly [string, string])[],
): Promise<string> {
  const socket = connectTcp(port, '127.0.0.1');
  socket.on('error', () => {});
  await once(socket, 'connect');
  const block = Buffer.concat(
    headers.map(([name, value]) => Buffer.concat([Buffer.of(0), hpackText(name), hpackText(value)])),
  );
  socket.write(
    Buffer.concat([
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      http2Frame(4, 0, 0, Buffer.alloc(0)),
      http2Frame(1, 0x4, 1, block),
    ]),
  );
  return await answerTo(socket);
}

async function answerTo(socket: Socket): Promise<string> {
  let received: Buffer = Buffer.alloc(0);
  const done = new Promise<string>((resolve) => {
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      for (let at = 0; at + 9 <= received.length; ) {
        const length = received.readUIntBE(at, 3);
        const [type, stream] = [received[at + 3], received.readUInt32BE(at + 5) & 0x7fffffff];
        if (type === 3 && stream === 1) resolve(`reset ${received.readUInt32BE(at + 9)}`);
        if (type === 7) resolve(`goaway ${received.readUInt32BE(at + 13)}`);
        if (type === 1 && stream === 1) resolve('answered');
        at += 9 + length;
      }
    });
    socket.once('close', () => resolve('closed'));
  });
  const outcome = await done;
  socket.destroy();
  return outcome;
}

function http2Frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A literal without Huffman coding; lengths under 127 fit one byte. */
function hpackText(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length > 126) throw new Error('too long for one byte of length');
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}
