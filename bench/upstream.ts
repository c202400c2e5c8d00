/**
 * An upstream that says what the last message of a request asks for: `#kind=code #deltas=5000 #echo=20000`. It costs
 * as little as can be: frames are made once for each kind. Prints `listening HOST:PORT`.
 *
 * kind      text, code (200 bytes with escapes), logprobs, obfuscation
 * deltas    how many (1)
 * rate      deltas a second, each with the time of its hand-over (all at once)
 * echo      bytes of instructions and tools that created, in_progress and completed repeat
 * size      bytes of text in each delta
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer as createPlain } from 'node:http';
import { createServer as createTls } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';

interface Wish {
  readonly kind: string;
  readonly deltas: number;
  readonly rate: number;
  readonly echo: number;
  readonly size: number;
}

const CHUNK_FRAMES = 256;
/** As they stand in the frames, to be replaced by others of the same length. */
const RESPONSE_ID = `resp_${'0'.repeat(48)}`;
const STAMP = '0000000000000.000';

const [certFile, keyFile] = process.argv.slice(2);
const server =
  certFile === undefined || keyFile === undefined
    ? createPlain()
    : createTls({ cert: readFileSync(certFile), key: readFileSync(keyFile) });
const sockets = new WebSocketServer({ server, maxPayload: 64 * 1024 * 1024, perMessageDeflate: false });
sockets.on('connection', (socket, request) => {
  request.socket.setNoDelay(true);
  socket.on('message', (bytes: Buffer) => void answer(socket, request.socket, bytes));
});
server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`listening 127.0.0.1:${(server.address() as AddressInfo).port}\n`);
});
process.on('SIGINT', () => process.exit(0));

async function answer(socket: WebSocket, tcp: Socket, request: Buffer): Promise<void> {
  const lane = /"stream_id":"([^"]*)"/.exec(request.toString('latin1'))?.[1];
  const wish = wishOf(request);
  const id = `resp_${randomBytes(24).toString('hex')}`;
  const { head, delta, tail } = framesFor(wish);
  const own = (frame: string) => {
    const text = frame.replaceAll(RESPONSE_ID, id);
    return lane === undefined ? text : `{"stream_id":"${lane}",${text.slice(1)}`;
  };
  tcp.cork();
  for (const frame of head) socket.send(own(frame));
  const ownDelta = own(delta);
  if (wish.rate === 0) {
    const bytes = Buffer.from(ownDelta);
    for (let n = 0; n < wish.deltas; n += 1) {
      socket.send(bytes, { binary: false });
      if (n % CHUNK_FRAMES !== CHUNK_FRAMES - 1) continue;
      tcp.uncork();
      // A socket that is full says so; what is written on would only fill our own memory.
      if (tcp.writableNeedDrain) await new Promise((resolve) => tcp.once('drain', resolve));
      else await new Promise(setImmediate);
      tcp.cork();
    }
  } else {
    tcp.uncork();
    await paced(socket, ownDelta, wish);
    tcp.cork();
  }
  for (const frame of tail) socket.send(own(frame));
  tcp.uncork();
}

/** By the clock: a late one does not delay the next. */
async function paced(socket: WebSocket, delta: string, { deltas, rate }: Wish): Promise<void> {
  const [before = '', after = ''] = delta.split(STAMP);
  const start = performance.now() + Math.random() * (1_000 / rate);
  for (let n = 0; n < deltas; n += 1) {
    const due = start + (n * 1_000) / rate - performance.now();
    if (due > 0) await new Promise((resolve) => setTimeout(resolve, due));
    if (socket.readyState !== socket.OPEN) return;
    socket.send(`${before}${now()}${after}`);
  }
}

/** Milliseconds since 1970, the same in all processes of a machine; as long as STAMP. */
function now(): string {
  return (performance.timeOrigin + performance.now()).toFixed(3);
}

function wishOf(request: Buffer): Wish {
  const from = request.lastIndexOf('#kind=');
  const text = from < 0 ? '' : request.toString('latin1', from, from + 200);
  const number = (name: string, otherwise: number) =>
    Number(new RegExp(`#${name}=(\\d+)`).exec(text)?.[1] ?? otherwise);
  return {
    kind: /#kind=(\w+)/.exec(text)?.[1] ?? 'text',
    deltas: number('deltas', 1),
    rate: number('rate', 0),
    echo: number('echo', 0),
    size: number('size', 0),
  };
}

interface Frames {
  readonly head: readonly string[];
  readonly delta: string;
  readonly tail: readonly string[];
}

const made = new Map<string, Frames>();

function framesFor(wish: Wish): Frames {
  const key = JSON.stringify(wish);
  const known = made.get(key);
  if (known !== undefined) return known;
  const frames = makeFrames(wish);
  made.set(key, frames);
  return frames;
}

function makeFrames({ kind, rate, echo, size }: Wish): Frames {
  const response = (status: string, more: object) => ({
    id: RESPONSE_ID,
    object: 'response',
    created_at: 1_764_500_000,
    status,
    background: false,
    error: null,
    incomplete_details: null,
    instructions: echo === 0 ? null : prose(echo / 2),
    max_output_tokens: null,
    max_tool_calls: null,
    model: 'gpt-5.5-2026-04-01',
    output: [],
    parallel_tool_calls: true,
    previous_response_id: null,
    prompt_cache_key: null,
    reasoning: { effort: 'medium', summary: null },
    safety_identifier: null,
    service_tier: 'default',
    store: false,
    temperature: 1,
    text: { format: { type: 'text' }, verbosity: 'medium' },
    tool_choice: 'auto',
    tools: echo === 0 ? [] : tools(echo / 2),
    top_logprobs: 0,
    top_p: 1,
    truncation: 'disabled',
    usage: null,
    user: null,
    metadata: {},
    ...more,
  });
  const item = 'msg_67ccd3acc8d48190a77525dc6de64b4104becb25c45c1d41';
  const text = textOf(kind, size, rate);
  const delta = {
    type: 'response.output_text.delta',
    content_index: 0,
    delta: text,
    item_id: item,
    logprobs: kind === 'logprobs' ? logprobs() : [],
    ...(kind === 'obfuscation' ? { obfuscation: 'Xk2p0QmZt81' } : {}),
    output_index: 0,
    sequence_number: 42,
  };
  const message = {
    id: item,
    type: 'message',
    status: 'completed',
    role: 'assistant',
    content: [{ type: 'output_text', annotations: [], logprobs: [], text: 'Done.' }],
  };
  const usage = {
    input_tokens: 1_200,
    input_tokens_details: { cached_tokens: 1_024 },
    output_tokens: 20,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: 1_220,
  };
  const done = response('completed', { output: [message], usage, completed_at: 1_764_500_001 });
  const created = { type: 'response.created', sequence_number: 0, response: response('in_progress', {}) };
  return {
    head: [
      JSON.stringify(created),
      ...(echo === 0
        ? []
        : [JSON.stringify({ ...created, type: 'response.in_progress', sequence_number: 1 })]),
    ],
    delta: JSON.stringify(delta),
    tail: [JSON.stringify({ type: 'response.completed', sequence_number: 99, response: done })],
  };
}

function textOf(kind: string, size: number, rate: number): string {
  if (rate > 0) return `${STAMP} ${'x'.repeat(40)}`;
  if (kind === 'code') return code(size || 200);
  if (kind === 'logprobs') return ' Stockholm';
  return prose(size || 40);
}

function prose(bytes: number): string {
  return 'The quick brown fox jumps over the lazy dog and goes home. '.repeat(bytes / 59 + 1).slice(0, bytes);
}

function code(bytes: number): string {
  return '\tif (value === "none") {\n\t\treturn text.replace(/\\s+/g, " ");\n\t}\n'
    .repeat(bytes / 64 + 1)
    .slice(0, bytes);
}

function logprobs(): object[] {
  const token = (text: string, logprob: number) => ({ token: text, bytes: [...Buffer.from(text)], logprob });
  const top = [' Stockholm', ' Sweden', ' the', ' a', '\n'].map((each, n) =>
    token(each, -0.0123456 - n * 1.25),
  );
  return [{ ...token(' Stockholm', -0.0123456), top_logprobs: top }];
}

function tools(bytes: number): object[] {
  const tool = (n: number) => ({
    type: 'function',
    name: `read_file_${n}`,
    description:
      'Reads a file of the workspace and returns its text, "as is", with line numbers.\nPaths are relative.',
    parameters: {
      type: 'object',
      properties: {
        path: { type: 'string', description: 'Path of the file' },
        from: { type: 'integer', description: 'First line' },
        to: { type: 'integer', description: 'Last line' },
      },
      required: ['path', 'from', 'to'],
      additionalProperties: false,
    },
    strict: true,
  });
  const list: object[] = [];
  for (let size = 0; size < bytes; size += 430) list.push(tool(list.length));
  return list;
}
