/**
 * What an event costs on its way from the upstream's bytes to protobuf bytes, beside JSON.parse and
 * proto-loader's serialize over the same frame, in the same run. Prints a table; `--json` prints numbers.
 */
import type * as protoLoader from '@grpc/proto-loader';
import type { SessionEvent } from '../src/core/types.ts';
import { createWire, frameFromBytes, loadApi, peekFrame } from '../src/translate/index.ts';

const ROUNDS = 15;
const WARM_UP_MS = 300;
const ROUND_MS = 60;

const DELTA =
  '{"type":"response.output_text.delta","content_index":0,"delta":" Stockholm","item_id":"msg_67ccd3acc8d48190a77525dc6de64b4104becb25c45c1d41","logprobs":[],"obfuscation":"Xk2p0Q","output_index":0,"sequence_number":42}';

const FRAMES: readonly (readonly [string, string])[] = [
  ['text delta', DELTA],
  ['text delta, escapes', DELTA.replace(' Stockholm', '\\n\\"caf\\u00e9\\"\\t')],
  [
    'arguments delta',
    '{"type":"response.function_call_arguments.delta","delta":"{\\"city\\":","item_id":"fc_67ccd3acc8d48190","output_index":1,"sequence_number":7}',
  ],
  [
    'item done',
    '{"type":"response.output_item.done","sequence_number":8,"output_index":0,"item":{"id":"msg_67ccd3acc8d48190","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"The capital of Sweden is Stockholm, a city on fourteen islands.","annotations":[],"logprobs":[]}]}}',
  ],
  ['unknown event', DELTA.replace('output_text.delta', 'brand_new.delta')],
];

/** Keeps the results alive, so that the compiler cannot drop the work. */
let sink: unknown;

const api = loadApi();
const wire = createWire(api);
const definition = api.packageDefinition[
  'responses.gateway.v1.ResponsesService'
] as protoLoader.ServiceDefinition;
const serialize = definition['Connect']?.responseSerialize;
if (serialize === undefined) throw new Error('no Connect in the service');

const rows = FRAMES.map(([name, text]) => {
  const bytes = Buffer.from(text);
  const ours = medianMicros(() => wire.event(eventOf(bytes), { payload: 'typed', schemaRevision: 0 }));
  const raw = medianMicros(() => wire.event(eventOf(bytes), { payload: 'json', schemaRevision: 0 }));
  const peek = medianMicros(() => peekFrame(bytes));
  const naive = medianMicros(() => {
    const { type, ...payload } = JSON.parse(bytes.toString()) as Record<string, unknown>;
    const arm = String(type).replace('response.', '').replaceAll('.', '_');
    return serialize({
      events: { events: [{ seq: 4711, lane_id: 'agent_1', turn_id: 'turn-17', type, [arm]: payload }] },
    });
  });
  return { event: name, bytes: bytes.length, typed_us: ours, json_us: raw, peek_us: peek, naive_us: naive };
});

if (process.argv.includes('--json')) console.log(JSON.stringify(rows));
else {
  console.log('Median µs an event. typed and json include the frame (peek, validation) and the envelope.');
  console.table(rows);
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
    byteLength: bytes.length,
  };
}

function medianMicros(run: () => unknown): string {
  timed(run, WARM_UP_MS);
  const rounds = Array.from({ length: ROUNDS }, () => timed(run, ROUND_MS)).sort((a, b) => a - b);
  return `${rounds[ROUNDS >> 1]?.toFixed(2)} (best ${rounds[0]?.toFixed(2)})`;
}

function timed(run: () => unknown, forMs: number): number {
  // CPU time of this thread: what others do on the machine does not count.
  const start = process.threadCpuUsage();
  let calls = 0;
  let micros = 0;
  do {
    for (let i = 0; i < 500; i++) sink = run();
    calls += 500;
    const { user, system } = process.threadCpuUsage(start);
    micros = user + system;
  } while (micros < forMs * 1000);
  if (sink === undefined) throw new Error('nothing was made');
  return micros / calls;
}
