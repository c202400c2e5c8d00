/**
 * What an event costs in each client: `node clients/conformance/bench.ts [NAME …]`. Once with a message for each event,
 * from a server that does nothing else, and once with the batches that a real gateway sends from its simulator. Prints
 * a Markdown table; the time of the server is not in the CPU column.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { python } from '../../scripts/client-tools.ts';
import { startGateway } from '../../src/app/gateway.ts';
import { configSchema } from '../../src/config/schema.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const EVENTS = 60_000;
const WARM_UP_EVENTS = 5_000;
const METHOD = '/responses.gateway.v1.ResponsesService/Connect';

interface Client {
  readonly name: string;
  readonly folder: string;
  command(): { readonly file: string; readonly args: readonly string[] };
}

interface Cost {
  readonly events: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

const pythonBench = (...args: string[]) => ({
  file: python() as string,
  args: ['-B', '-m', 'conformance.bench', ...args],
});
const CLIENTS: readonly Client[] = [
  { name: 'go', folder: 'clients/go', command: () => ({ file: 'go', args: ['run', './internal/bench'] }) },
  { name: 'python', folder: 'clients/python', command: () => pythonBench() },
  { name: 'python asyncio', folder: 'clients/python', command: () => pythonBench('asyncio') },
  { name: 'java', folder: 'clients/java', command: () => ({ file: 'sh', args: ['bench.sh'] }) },
  {
    name: 'typescript',
    folder: 'clients/typescript',
    command: () => ({ file: process.execPath, args: ['conformance/bench.ts'] }),
  },
];

await main(process.argv.slice(2));

async function main(names: readonly string[]): Promise<void> {
  const single = await startSingleEvents();
  const batched = await startBatched();
  console.log('| client | batches | events/s | CPU per event |');
  console.log('|---|---|---|---|');
  for (const client of CLIENTS.filter(
    ({ name }) => names.length === 0 || names.some((each) => name.startsWith(each)),
  )) {
    for (const [label, server] of [
      ['of 1', single],
      ["the gateway's", batched],
    ] as const) {
      const cost = await measure(client, server.address).catch((error: Error) => error);
      if (cost instanceof Error)
        console.log(`| ${client.name} | ${label} | not measured: ${firstLine(cost)} | |`);
      else console.log(`| ${client.name} | ${label} | ${rate(cost)} | ${micros(cost)} µs |`);
    }
  }
  await single.close();
  await batched.close();
  process.exit(0);
}

async function measure(client: Client, address: string): Promise<Cost> {
  const cwd = `${ROOT}${client.folder}`;
  if (!existsSync(cwd)) throw new Error('no such client here');
  const { file, args } = client.command();
  const env = {
    ...process.env,
    RESPONSES_GATEWAY_ADDR: address,
    BENCH_INPUT: `#deltas=${EVENTS}`,
    BENCH_WARM_UP: `#deltas=${WARM_UP_EVENTS}`,
    PYTHONPATH: 'src',
  };
  const { stdout } = await promisify(execFile)(file, args, { cwd, env, timeout: 120_000 });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Cost;
}

async function startBatched() {
  const config = configSchema.parse({ listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' } });
  const surroundings = { environment: {}, version: 'bench', logDestination: { write: () => undefined } };
  const gateway = await startGateway(config, surroundings);
  return { address: `127.0.0.1:${gateway.grpcPort}`, close: () => gateway.close() };
}

/** Answers each turn with the asked number of deltas, a message each. The messages are written beforehand. */
async function startSingleEvents() {
  const definition = loadSync('responses/gateway/v1/service.proto', {
    includeDirs: [`${ROOT}proto`],
    keepCase: true,
  });
  const service = definition['responses.gateway.v1.ResponsesService'] as unknown as {
    readonly Connect: {
      responseSerialize(message: object): Buffer;
      requestDeserialize(bytes: Buffer): { start_turn?: { turn_id: string; create: object } };
    };
  };
  const { responseSerialize, requestDeserialize } = service.Connect;
  const handler = (call: ServerDuplexStream<Buffer, Buffer>) => {
    let seq = 0;
    call.write(responseSerialize({ opened: { session_id: 'bench', resume_grace: { seconds: 60 } } }));
    call.on('data', (bytes: Buffer) => {
      const turn = requestDeserialize(bytes).start_turn;
      if (turn === undefined || turn === null) return;
      const count = Number(/#deltas=(\d+)/.exec(JSON.stringify(turn.create))?.[1] ?? 1);
      const messages = Array.from({ length: count }, (_, index) => {
        const last = index === count - 1;
        const event = {
          seq: ++seq,
          turn_id: turn.turn_id,
          type: last ? 'response.completed' : 'response.output_text.delta',
          ...(last
            ? { outcome: 'TURN_OUTCOME_COMPLETED', response_completed: { response: { id: 'resp_1' } } }
            : {
                output_text_delta: {
                  sequence_number: index,
                  item_id: 'msg_0123456789abcdef',
                  delta: 'word ',
                },
              }),
        };
        return responseSerialize({ events: { events: [event] } });
      });
      let next = 0;
      const pump = (): void => {
        while (next < messages.length)
          if (!call.write(messages[next++] as Buffer)) return void call.once('drain', pump);
      };
      pump();
    });
    call.on('end', () => call.end());
    call.on('error', () => undefined);
  };
  const identity = (bytes: Buffer) => bytes;
  const server = new Server();
  server.addService(
    {
      Connect: {
        path: METHOD,
        requestStream: true,
        responseStream: true,
        requestSerialize: identity,
        requestDeserialize: identity,
        responseSerialize: identity,
        responseDeserialize: identity,
      },
    },
    { Connect: handler },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  return { address: `127.0.0.1:${port}`, close: async () => server.forceShutdown() };
}

function rate({ events, seconds }: Cost): string {
  return Math.round(events / seconds).toLocaleString('en');
}

function micros({ events, cpuSeconds }: Cost): string {
  return ((cpuSeconds / events) * 1e6).toFixed(1);
}

function firstLine(error: Error): string {
  return (error.message.split('\n')[0] ?? '').replaceAll(ROOT, '').slice(0, 80);
}
