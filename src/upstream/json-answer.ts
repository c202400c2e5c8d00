import type { ClientRequest, IncomingMessage } from 'node:http';
import { errorCode, notReached } from '../dialect/link-down.ts';
import { refusedCall } from '../dialect/refusal.ts';
import { GatewayError } from '../errors.ts';
import { readAnswer } from './http-answer.ts';
import { onConnected } from './http-post.ts';
import type { Redactor } from './redact.ts';

/** The whole body of a JSON answer. Rejects with GatewayError: TURN_CANCELLED when the signal ends it. */
export function readJsonAnswer(
  request: ClientRequest,
  maxBytes: number,
  redactor: Redactor,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  let connected = false;
  onConnected(request, request.protocol === 'https:', () => {
    connected = true;
  });
  const fail = (error: GatewayError) => {
    reject(error);
    request.destroy();
  };
  const abort = () => fail(new GatewayError('TURN_CANCELLED', 'the caller gave up'));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  request.on('error', (error) => fail(connectionLost(error, connected)));
  request.once('response', (response: IncomingMessage) => {
    if (response.statusCode !== 200) {
      readAnswer(response, redactor, (answer) => fail(refusedCall(answer, Date.now())));
      return;
    }
    const chunks: Buffer[] = [];
    let length = 0;
    response.on('data', (chunk: Buffer) => {
      length += chunk.length;
      chunks.push(chunk);
      if (length > maxBytes) fail(new GatewayError('UPSTREAM_PROTOCOL', 'the answer is over the limit'));
    });
    response.once('end', () => resolve(redactor.answer(Buffer.concat(chunks))));
    response.on('error', (error) => fail(connectionLost(error, true)));
  });
  return promise.finally(() => signal.removeEventListener('abort', abort));
}

function connectionLost(error: Error, connected: boolean): GatewayError {
  if (!connected) return notReached(error);
  return new GatewayError('UPSTREAM_LINK_LOST', 'the connection broke before the answer was complete', {
    metadata: { cause: errorCode(error) },
  });
}
