/**
 * What an event costs on its way from the upstream's bytes to protobuf bytes, beside JSON.parse and
 * proto-loader's serialize over the same frame, in the same run. Deltas are padded, as live ones are; what the padding
 * costs is told apart. Prints a table; `--json` prints numbers.
 */
import { fileURLToPath } from 'node:url';
import * as protoLoader from '@grpc/proto-loader';
import type { SessionEvent } from '../src/core/types.ts';
import { createWire, type EventFormat, frameFromBytes, loadApi } from '../src/translate/index.ts';

const WARM_UP_CALLS = 20_000;
const ROUNDS = 200;
/** Short rounds: most are then free of whatever else the machine does. */
const CALLS_A_ROUND = 500;

const DELTA =
  '{"type":"response.output_text.delta","content_index":0,"delta":" Stockholm","item_id":"msg_67ccd3acc8d48190a77525dc6de64b4104becb25c45c1d41","logprobs":[],"obfuscation":"Xk2p0QmVb7Rt3Z","output_index":0,"sequence_number":42}';
/** `include_obfuscation: false`. */
const UNPADDED = DELTA.replace(',"obfuscation":"Xk2p0QmVb7Rt3Z"', '');

const PROSE = 'The quick brown fox jumps over the lazy dog and goes home. ';
const CODE = '\\tif (value === \\"none\\") {\\n\\t\\treturn text.replace(/\\\\s+/g, \\" \\");\\n\\t}\\n';
const TOKEN = '{"token":" Stockholm","bytes":[32,83,116,111,99,107,104,111,108,109],"logprob":-0.0123456';
const LOGPROBS = `[${TOKEN},"top_logprobs":[${TOKEN}},${TOKEN.replace('Stockholm', 'Sweden')}},${TOKEN}}]}]`;

const FRAMES: readonly (readonly [string, string])[] = [
  ['text delta', DELTA],
  ['text delta, not padded', UNPADDED],
  ['text delta, escapes', DELTA.replace(' Stockholm', '\\n\\"caf\\u00e9\\"\\t')],
  [
    'arguments delta',
    '{"type":"response.function_call_arguments.delta","delta":"{\\"city\\":","item_id":"fc_67ccd3acc8d48190","obfuscation":"Xk2p0QmVb7Rt3Z","output_index":1,"sequence_number":7}',
  ],
  [
    'item done',
    '{"type":"response.output_item.done","sequence_number":8,"output_index":0,"item":{"id":"msg_67ccd3acc8d48190","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"The capital of Sweden is Stockholm, a city on fourteen islands.","annotations":[],"logprobs":[]}]}}',
  ],
  ['code delta, 200 B', DELTA.replace(' Stockholm', CODE.repeat(3))],
  ['delta with logprobs', DELTA.replace('"logprobs":[]', `"logprobs":${LOGPROBS}`)],
  ['prose, 20 KB', DELTA.replace(' Stockholm', PROSE.repeat(340))],
  ['code, 22 KB', DELTA.replace(' Stockholm', CODE.repeat(300))],
  ['unknown event', DELTA.replace('output_text.delta', 'brand_new.delta')],
];

/** Keeps the results alive, so that the compiler cannot drop the work. */
let sink: unknown;

const TYPED: EventFormat = { payload: 'typed', schemaRevision: 0 };

const api = loadApi();
const wire = createWire(api);
const definition = protoLoader.loadSync('responses/gateway/v1/service.proto', {
  includeDirs: [fileURLToPath(new URL('../proto', import.meta.url))],
  keepCase: true,
})['responses.gateway.v1.ResponsesService'] as protoLoader.ServiceDefinition;
const serialize = (definition['Connect'] ?? missing()).responseSerialize;

const rows = FRAMES.map(([name, text]) => {
  const bytes = Buffer.from(text);
  const event = eventOf(bytes);
  const measured = measure({
    frame: () => frameFromBytes(bytes),
    typed: () => wire.event(event, TYPED),
    json: () => wire.event(event, { ...TYPED, payload: 'json' }),
    total: () => wire.event(eventOf(bytes), TYPED),
    naive: () => naively(bytes),
  });
  return { event: name, bytes: bytes.length, ...measured };
});

const [padded, unpadded] = [DELTA, UNPADDED].map((text) => Buffer.from(text));
const pair = rounds({
  padded: () => wire.event(eventOf(padded as Buffer), TYPED),
  unpadded: () => wire.event(eventOf(unpadded as Buffer), TYPED),
});
/** Of the rounds that ran one after the other. */
const padding = median(pair.padded.map((micros, n) => micros / (pair.unpadded[n] ?? micros)));

if (process.argv.includes('--json')) console.log(JSON.stringify({ rows, padding }));
else {
  console.log(`Median (best) µs an event, over ${ROUNDS} rounds.`);
  console.log(
    'frame: the upstream’s bytes checked and looked into; typed, json: a frame to an Event of the API;',
  );
  console.log('total: frame and typed; naive: JSON.parse, then proto-loader’s serialize.');
  console.table(rows);
  console.log(`A padded delta takes ${padding.toFixed(3)} times what one without obfuscation takes.`);
}

/** What a gateway does that keeps a tree in between. */
function naively(bytes: Buffer): Buffer {
  const { type, ...payload } = JSON.parse(bytes.toString()) as Record<string, unknown>;
  const arm = String(type).replace('response.', '').replaceAll('.', '_');
  const event = { seq: 4711, lane_id: 'agent_1', turn_id: 'turn-17', type, [arm]: payload };
  return serialize({ events: { events: [event] } });
}

function eventOf(bytes: Buffer): SessionEvent {
  const frame = frameFromBytes(bytes);
  return {
    seq: 4711,
    laneId: 'agent_1',
    turnId: 'turn-17',
    type: frame.type,
    outcome: undefined,
    frame,
    turnFailed: undefined,
    notice: undefined,
    commit: undefined,
    byteLength: bytes.length,
  };
}

function measure(candidates: Readonly<Record<string, () => unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(rounds(candidates)).map(([name, micros]) => [
      name,
      `${median(micros).toFixed(2)} (${Math.min(...micros).toFixed(2)})`,
    ]),
  );
}

/** µs a call of each round. Runs the candidates in turn, so that a slow minute of the machine hits all of them. */
function rounds<N extends string>(candidates: Readonly<Record<N, () => unknown>>): Record<N, number[]> {
  const all = (Object.entries(candidates) as [N, () => unknown][]).map(([name, run]) => ({
    name,
    run,
    micros: [] as number[],
  }));
  for (const { run } of all) for (let i = 0; i < WARM_UP_CALLS; i++) sink = run();
  for (let round = 0; round < ROUNDS; round++) {
    for (const { run, micros } of all) {
      const start = performance.now();
      for (let i = 0; i < CALLS_A_ROUND; i++) sink = run();
      micros.push(((performance.now() - start) * 1000) / CALLS_A_ROUND);
    }
  }
  if (sink === undefined) throw new Error('nothing was made');
  return Object.fromEntries(all.map(({ name, micros }) => [name, micros])) as Record<N, number[]>;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
}

function missing(): never {
  throw new Error('no Connect in the service');
}
