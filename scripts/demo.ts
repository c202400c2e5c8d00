/**
 * An agent with 20 tool calls, through a gateway and the built-in simulator, both in this process. The agent sends only
 * what is new; at the end stands what went upstream, against what the whole context would have cost on every turn.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { type RunningGateway, startGateway } from '../src/app/gateway.ts';
import { type ClientEvent, openSession } from '../src/cli/gateway-client.ts';
import { packageVersion } from '../src/cli/version.ts';
import { loadConfig } from '../src/config/load.ts';
import { print, table } from './demo-output.ts';

const TOOL_CALLS = 20;
const MODEL = 'gpt-5.5';
/** What the simulated model takes; zero would show nothing streaming. */
const MODEL_TIMING = { timeToFirstToken: '30ms', tokensPerSecond: 300 };

const INSTRUCTIONS = 'You review an API. Look at its files one by one, then say what you think of it.';
const PROTO = new URL('../proto/responses/gateway/v1/', import.meta.url);
const FILES = readdirSync(PROTO).sort();

/** Real answers of realistic size, different every time. */
const TOOLS: Readonly<Record<string, (step: number) => string>> = {
  list_files: (step) => FILES.slice(0, (step % FILES.length) + 1).join('\n'),
  read_file: (step) => readProto(step).slice(0, 3_000),
  list_messages: (step) => (readProto(step).match(/^message \w+/gm) ?? []).join('\n'),
};

const TOOL_DEFINITIONS = Object.keys(TOOLS).map((name) => ({
  type: 'function',
  name,
  description: `Answers with the result of ${name.replace('_', ' ')}.`,
  parameters: { type: 'object', properties: {}, additionalProperties: false },
  strict: true,
}));

interface Item {
  readonly type: string;
  readonly [field: string]: unknown;
}

interface Turn {
  readonly output: readonly Item[];
  readonly firstTokenMs: number;
  readonly totalMs: number;
}

const gateway = await startGateway(demoConfig(), { environment: {}, version: packageVersion() });
try {
  await demo(gateway);
} finally {
  await gateway.close();
}

async function demo({ grpcPort, simulator }: RunningGateway): Promise<void> {
  let onEvent: (event: ClientEvent) => void = () => {};
  let onEnd: (error: Error | undefined) => void = () => {};
  const session = await openSession(
    { address: `127.0.0.1:${grpcPort}` },
    { onEvent: (event) => onEvent(event), onGoAway: () => {}, onEnd: (error) => onEnd(error) },
  );
  print(`\n  ${session.sessionId}: one stream to the gateway, one WebSocket upstream\n\n`);

  const startedAt = performance.now();
  const turns: Turn[] = [];
  const history: Item[] = [];
  let fullContextBytes = 0;
  let input: readonly Item[] = [
    { type: 'message', role: 'user', content: `Please review this API. #tools=${TOOL_CALLS}` },
  ];
  while (input.length > 0) {
    history.push(...input);
    fullContextBytes += Buffer.byteLength(
      JSON.stringify({ type: 'response.create', ...settings(), input: history }),
    );
    const turn = await runTurn(`turn-${turns.length + 1}`, input);
    turns.push(turn);
    history.push(...turn.output);
    input = turn.output
      .filter(({ type }) => type === 'function_call')
      .map((call) => answer(call, turns.length));
  }
  const totalMs = performance.now() - startedAt;

  const ended = new Promise<Error | undefined>((resolve) => {
    onEnd = resolve;
  });
  session.end();
  const error = await ended;
  if (error !== undefined) throw error;

  const sentBytes = simulator?.journal.counters.bytesReceived ?? 0;
  const first = turns.map(({ firstTokenMs }) => firstTokenMs).sort((a, b) => a - b);
  print(
    table([
      ['turns', String(turns.length)],
      ['tool calls', String(history.filter(({ type }) => type === 'function_call').length)],
      ['bytes sent upstream', sentBytes.toLocaleString('en')],
      ['with full context on every turn', fullContextBytes.toLocaleString('en')],
      ['saved', `${(100 * (1 - sentBytes / fullContextBytes)).toFixed(1)} %`],
      ['time to first token, median', `${(first[Math.floor(first.length / 2)] ?? 0).toFixed(1)} ms`],
      ['total', `${(totalMs / 1000).toFixed(2)} s`],
    ]),
  );
  print(
    `  The model is simulated: ${MODEL_TIMING.timeToFirstToken} to the first token, ${MODEL_TIMING.tokensPerSecond} tokens a second.\n\n`,
  );

  function runTurn(turnId: string, items: readonly Item[]): Promise<Turn> {
    const sentAt = performance.now();
    let firstTokenAt: number | undefined;
    const output: Item[] = [];
    return new Promise((resolve, reject) => {
      onEnd = (ended) => reject(ended ?? new Error('the session ended in the middle of a turn'));
      onEvent = ({ type, json, outcome, failure }) => {
        if (type.endsWith('.delta')) firstTokenAt ??= performance.now();
        if (type === 'response.output_text.delta') print(String(json?.['delta']));
        if (type === 'response.output_item.done') {
          const item = json?.['item'] as Item;
          output.push(item);
          if (item.type === 'function_call') print(`  ${turnId.padEnd(8)} ${String(item['name'])}()\n`);
        }
        if (outcome === undefined) return;
        const endedAt = performance.now();
        if (outcome !== 'COMPLETED') reject(new Error(`${turnId}: ${outcome} ${failure?.reason ?? ''}`));
        resolve({ output, firstTokenMs: (firstTokenAt ?? endedAt) - sentAt, totalMs: endedAt - sentAt });
      };
      const { tools, ...create } = settings();
      session.startTurn({
        laneId: '',
        turnId,
        create: { ...create, tools: tools.map((tool) => ({ json: Buffer.from(JSON.stringify(tool)) })) },
        input: items,
      });
    });
  }
}

function settings() {
  return { model: MODEL, instructions: INSTRUCTIONS, tools: TOOL_DEFINITIONS, store: false };
}

function answer(call: Item, step: number): Item {
  const tool = TOOLS[String(call['name'])];
  const output = tool === undefined ? 'error: there is no such tool' : tool(step);
  return { type: 'function_call_output', call_id: call['call_id'], output };
}

function readProto(step: number): string {
  return readFileSync(new URL(FILES[step % FILES.length] ?? '', PROTO), 'utf8');
}

function demoConfig() {
  const flags = {
    listen: '127.0.0.1:0',
    'admin.listen': '127.0.0.1:0',
    'telemetry.logs.level': 'error',
    'simulator.time_to_first_token': MODEL_TIMING.timeToFirstToken,
    'simulator.tokens_per_second': MODEL_TIMING.tokensPerSecond,
  };
  return loadConfig({
    file: undefined,
    environment: {},
    flags: Object.entries(flags).map(([path, value]) => ({
      path: path.split('.'),
      value,
      origin: { kind: 'flag', name: path },
    })),
  }).config;
}
