import type { IncomingMessage, ServerResponse } from 'node:http';
import { expect, test } from 'vitest';
import type { WebSocket } from 'ws';
import { frameFromBytes } from '../../src/translate/peek.ts';
import { createCredential } from '../../src/upstream/credential.ts';
import { redactorFor } from '../../src/upstream/redact.ts';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { userMessage } from '../harness/client.ts';
import { startGateway } from '../harness/gateway.ts';
import { answer, type HostileUpstreamOptions, startHostileUpstream } from './upstream.ts';

const KEY = 'sk-operator/planted+0123456789abcdef';

/** How an upstream may spell the header that it was sent. */
const SPELLINGS: Readonly<Record<string, (header: string) => string>> = {
  'as it is': (header) => header,
  'in capitals': (header) => header.toUpperCase(),
  'percent-encoded': (header) => encodeURIComponent(header),
  'percent-encoded, every character': (header) => inHex(header, (hex) => `%${hex}`),
  'percent-encoded twice': (header) => encodeURIComponent(encodeURIComponent(header)),
  'with HTML entities': (header) => header.replace(/./g, (c) => `&#${c.charCodeAt(0)};`),
  'escaped as JSON in a string': (header) => inHex(header, (hex) => `\\u00${hex}`),
  'in base64': (header) => Buffer.from(header).toString('base64'),
  'in base64, behind something else': (header) => Buffer.from(`x-${header}`).toString('base64url'),
  'in base64, elsewhere again': (header) => Buffer.from(`user:${header}\n`).toString('base64'),
  'in hexadecimal': (header) => Buffer.from(header).toString('hex'),
  'cut short': (header) => `${header.slice(0, 25)}…`,
  masked: () => `${KEY.slice(0, 8)}****${KEY.slice(-4)}`,
};

type Said = (request: IncomingMessage) => string;

/** Every way in which an upstream's words reach a caller. `say` gives the words. */
const ROADS: Readonly<Record<string, (say: Said) => HostileUpstreamOptions & { sse?: boolean }>> = {
  ...Object.fromEntries(
    [400, 401, 403, 404, 418, 429, 500, 503].map((status) => [
      `an upgrade refused with ${status}`,
      (say: Said) => ({ onHandshake: (request: IncomingMessage) => refusal(status, errorOf(say(request))) }),
    ]),
  ),
  'an upgrade refused with a page': (say) => ({
    onHandshake: (request) => refusal(400, `<html>${say(request)}</html>`),
  }),
  'an error frame': (say) => ({ onCreate: telling(say, (words) => errorFrame(words)) }),
  'a flat error frame': (say) => ({
    onCreate: telling(say, (words) => ({ type: 'error', code: words, message: words, param: words })),
  }),
  'an error frame with headers': (say) => ({
    onCreate: telling(say, (words) => ({
      ...errorFrame('no'),
      headers: { authorization: words, [words]: '1' },
    })),
  }),
  'a failed response': (say) => ({
    onCreate: telling(say, (words) => ({
      type: 'response.failed',
      response: {
        id: 'resp_1',
        status: 'failed',
        error: { code: words, message: words },
        metadata: { a: words },
      },
    })),
  }),
  'a member that comes twice': (say) => ({
    onCreate: raw(
      say,
      (words) =>
        `{"type":"error","status":400,"error":{"message":${JSON.stringify(words)}},"error":{"message":"no"}}`,
    ),
  }),
  'a close reason': (say) => ({
    onCreate: (socket, _create, _n, request) => socket.close(4000, say(request).slice(0, 120)),
  }),
  ...Object.fromEntries(
    [400, 401, 429, 500].map((status) => [
      `HTTP ${status} to a create`,
      (say: Said) => ({
        sse: true,
        onRequest: answering(status, 'application/json', (r) => errorOf(say(r))),
      }),
    ]),
  ),
  'HTTP 200 with a JSON error': (say) => ({
    sse: true,
    onRequest: answering(200, 'application/json', (request) => errorOf(say(request))),
  }),
  'an error in an event stream': (say) => ({
    sse: true,
    onRequest: answering(200, 'text/event-stream', (r) => `data: ${JSON.stringify(errorFrame(say(r)))}\n\n`),
  }),
  'an untyped error in an event stream': (say) => ({
    sse: true,
    onRequest: answering(200, 'text/event-stream', (request) => `data: ${errorOf(say(request))}\n\n`),
  }),
};

test.each(Object.entries(ROADS))('the provider’s key does not come back by %s', async (_road, road) => {
  for (const spelling of ['as it is', 'percent-encoded, every character', 'in base64']) {
    const spell = SPELLINGS[spelling] as (header: string) => string;
    const said = await hear(road((request) => spell(String(request.headers.authorization))));
    expect({ spelling, found: traceOf(said) }).toEqual({ spelling, found: undefined });
  }
});

test.each(Object.entries(SPELLINGS))('the key is recognised %s', (_name, spell) => {
  const redactor = redactorFor(createCredential(KEY));
  const words = spell(`Bearer ${KEY}`);
  expect(traceOf(`<${words}>`)).toBeDefined();
  expect(traceOf(redactor.text(`you sent <${words}>, which is wrong`))).toBeUndefined();
  const frame = frameFromBytes(Buffer.from(JSON.stringify({ ...errorFrame(words), [words]: [words] })));
  expect(traceOf(Buffer.from(redactor.frame(frame).bytes).toString())).toBeUndefined();
});

test('nor by an event that echoes the request’s headers, nor by a compacted conversation', async () => {
  const said = await hear({
    onCreate: (socket, create, _n, request) => {
      const metadata = { sent_by: String(request.headers.authorization) };
      socket.send(JSON.stringify({ type: 'codex.response.metadata', headers: request.headers }));
      answer(socket, create, 'ok', { metadata });
    },
    onRequest: answering(200, 'application/json', ({ headers }) =>
      JSON.stringify({
        id: 'cmp_1',
        object: 'response.compaction',
        created_at: 1,
        output: [],
        error: headers,
      }),
    ),
  });
  expect(said).toContain('TURN_OUTCOME_COMPLETED');
  expect(traceOf(said)).toBeUndefined();
});

test('a short word for a key is taken out of errors, and stays in content', () => {
  const redactor = redactorFor(createCredential('EMPTY'));
  expect(redactor.text('bad key EMPTY')).toBe('bad key [redacted]');
  expect(redactor.answer(Buffer.from('{"text":"EMPTY"}')).toString()).toBe('{"text":"EMPTY"}');
});

test('a long error without the key is not slow', () => {
  const redactor = redactorFor(createCredential(KEY));
  const text = 's'.repeat(32_000) + 'sk-opera'.repeat(4_000);
  const startedAt = process.cpuUsage();
  redactor.text(text);
  expect(process.cpuUsage(startedAt).user).toBeLessThan(200_000);
});

/** All that a caller gets to see of a turn and of a compaction, as text. */
async function hear({
  sse = false,
  ...options
}: HostileUpstreamOptions & { sse?: boolean }): Promise<string> {
  const upstream = await startHostileUpstream(options);
  const settings: Partial<UpstreamOptions> = {
    transport: sse ? 'sse' : 'websocket',
    credential: createCredential(KEY),
  };
  const gateway = await startGateway({
    upstreamUrl: upstream.url,
    upstream: settings,
    limits: { maxDialAttempts: 1, redialMaxMs: 5 },
  });
  try {
    const client = gateway.client();
    const stream = client.connect({ payload: 'PAYLOAD_FORMAT_BOTH' });
    await stream.opened();
    stream.startTurn({ turn_id: 't' }, 'hello');
    await stream.turn('t');
    const request = { create: { model: 'm', input: [userMessage('x')] } };
    const unary = await client.createResponse(request).result;
    const compacted = await client.compactResponse({ compact: { model: 'm', input: [userMessage('x')] } });
    expect(upstream.seen.some(({ authorization }) => authorization?.includes(KEY))).toBe(true);
    expect(gateway.bugs).toEqual([]);
    return JSON.stringify([stream.events, unary, compacted, gateway.telemetry], withTexts);
  } finally {
    await gateway.close();
    await upstream.close();
  }
}

function withTexts(_name: string, value: unknown): unknown {
  if (value instanceof Map) return [...value];
  const bytes = value as { type?: unknown; data?: unknown } | null;
  return bytes?.type === 'Buffer' ? Buffer.from(bytes.data as number[]).toString('utf8') : value;
}

/** Where the key, or what is telling of it, stands; undefined: nowhere. Decodes what can be decoded. */
function traceOf(text: string): string | undefined {
  const plain = decoded(text);
  const secret = KEY.slice(3, 19);
  const base64 = [0, 1, 2].map((at) =>
    Buffer.from(' '.repeat(at) + KEY)
      .toString('base64')
      .slice(4, -4),
  );
  const hex = Buffer.from(secret).toString('hex');
  const found = [secret, 'operato', KEY.slice(-4) === 'cdef' ? '****cdef' : '', hex, ...base64].find(
    (each) => each !== '' && plain.toLowerCase().includes(each.toLowerCase()),
  );
  const at = found === undefined ? -1 : plain.toLowerCase().indexOf(found.toLowerCase());
  return at < 0 ? undefined : plain.slice(Math.max(0, at - 60), at + 60);
}

function decoded(text: string): string {
  let plain = text;
  for (let round = 0; round < 4; round += 1) {
    plain = plain
      .replace(/\\+u00([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
      .replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
      .replace(/&#(\d+);/g, (_, code: string) => String.fromCharCode(Number(code)));
  }
  return plain;
}

function inHex(text: string, write: (hex: string) => string): string {
  return text.replace(/./g, (character) => write(character.charCodeAt(0).toString(16).padStart(2, '0')));
}

function errorOf(words: string): string {
  return JSON.stringify({ error: { type: words, code: words, message: `bad: ${words}`, param: words } });
}

function errorFrame(words: string) {
  return { type: 'error', status: 400, error: { type: words, code: words, message: words, param: words } };
}

function refusal(status: number, body: string): string {
  const head = `HTTP/1.1 ${status} No\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}`;
  return `${head}\r\nx-echo: ${KEY}\r\nlocation: /${KEY}\r\nconnection: close\r\n\r\n${body}`;
}

function telling(say: Said, frame: (words: string) => object) {
  return raw(say, (words) => JSON.stringify(frame(words)));
}

function raw(say: Said, text: (words: string) => string) {
  return (socket: WebSocket, _create: unknown, _n: number, request: IncomingMessage) =>
    socket.send(text(say(request)));
}

function answering(status: number, type: string, body: Said) {
  return (request: IncomingMessage, response: ServerResponse) => {
    request
      .resume()
      .once('end', () => response.writeHead(status, { 'content-type': type }).end(body(request)));
  };
}
