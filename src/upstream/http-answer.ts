import type { IncomingMessage } from 'node:http';
import type { HttpAnswer } from '../dialect/refusal.ts';
import type { Redactor } from './redact.ts';

/** Enough for any error object; the rest of a longer page is of no use. */
export const MAX_ANSWER_BYTES = 64 * 1024;
/** An error page that drips in does not hold up the next try. */
const ANSWER_BODY_TIMEOUT_MS = 2_000;

/** Reads the status and a bounded part of the body, then drops the connection. Never fails. */
export function readAnswer(
  response: IncomingMessage,
  redactor: Redactor,
  done: (answer: HttpAnswer) => void,
): void {
  const chunks: Buffer[] = [];
  let length = 0;
  const finish = () => {
    clearTimeout(timer);
    response.removeAllListeners('data').removeAllListeners('end').removeAllListeners('close');
    response.destroy();
    const answer = {
      status: response.statusCode ?? 0,
      headers: response.headers,
      body: Buffer.concat(chunks).toString('utf8'),
    };
    done(redactor.refusal(answer));
  };
  const timer = setTimeout(finish, ANSWER_BODY_TIMEOUT_MS);
  response.on('error', () => {});
  response.on('data', (chunk: Buffer) => {
    chunks.push(chunk.subarray(0, MAX_ANSWER_BYTES - length));
    length += chunk.length;
    if (length >= MAX_ANSWER_BYTES) finish();
  });
  response.once('end', finish);
  response.once('close', finish);
}
