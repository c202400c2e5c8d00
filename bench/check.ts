/**
 * Fails when what users feel costs much more than the floor of the same run, or than it should by itself: a regression
 * check that a slow or busy machine does not upset. Ratios only, medians of short rounds side by side; bounds stand at
 * 1.3 × what is measured on a busy machine (docs/performance.md).
 */
import { CASES, type Numbers, ROUND_TRIP_MS, type Target } from './support/cases.ts';
import { type Service, startGateway, startScript, startSimulator } from './support/processes.ts';
import { floorTurns, overFloor, overGateway } from './support/relay-load.ts';
import { median, round } from './support/report.ts';

const STREAMS = 8;
/** Enough that compiling and the clock's 10 ms do not show. */
const DELTAS = 5_000;
const ROUNDS = 5;
const SHORT = '#kind=text #deltas=1';

interface Check {
  readonly what: string;
  readonly bound: number;
  /** One round. */
  measure(): Promise<number>;
}

const simulator = await startSimulator();
const simulatorUrl = `ws://${simulator.address}/v1`;
const floor = await startScript(new URL('floor.ts', import.meta.url), [simulatorUrl]);
const gateway = await startGateway(simulatorUrl);
const upstream = await startScript(new URL('upstream.ts', import.meta.url), []);
const scriptUrl = `ws://${upstream.address}/v1`;
const scriptFloor = await startScript(new URL('floor.ts', import.meta.url), [scriptUrl]);
const scripted: Target = { gateway: await startGateway(scriptUrl), access: undefined };

const CHECKS: readonly Check[] = [
  { what: 'text deltas, typed, × the floor', bound: 2.9, measure: () => burst('TYPED') },
  { what: 'text deltas, JSON, × the floor', bound: 2.6, measure: () => burst('JSON') },
  { what: 'deltas of code, × the floor', bound: 3.9, measure: code },
  { what: 'short turn, × the floor', bound: 4.9, measure: shortTurn },
  { what: 'half-close to status, × a short turn', bound: 2, measure: halfClose },
  { what: 'full history of 1 MB, × its first turn', bound: 0.3, measure: history },
  { what: 'upload of 3 MB, in round trips', bound: 11, measure: upload },
];

let failed = false;
for (const { what, bound, measure } of CHECKS) {
  const ratios: number[] = [];
  // The first round only warms up.
  await measure();
  for (let n = 0; n < ROUNDS; n += 1) ratios.push(await measure());
  const ratio = median(ratios);
  failed ||= ratio > bound;
  const verdict = ratio <= bound ? 'ok' : 'TOO SLOW';
  process.stdout.write(`${what}: ${round(ratio)}, at most ${bound}: ${verdict}\n`);
}
const services: readonly Service[] = [gateway, floor, scripted.gateway, scriptFloor, simulator, upstream];
for (const service of services) await service.stop();
process.exit(failed ? 1 : 0);

async function burst(payload: 'TYPED' | 'JSON'): Promise<number> {
  const base = await overFloor(floor, STREAMS, DELTAS);
  const { cpuUs } = await overGateway(gateway, payload, STREAMS, DELTAS);
  return cpuUs / base.cpuUs;
}

async function code(): Promise<number> {
  const base = await overFloor(scriptFloor, STREAMS, DELTAS, `#kind=code #deltas=${DELTAS}`);
  return numberOf(await run('code'), 'CPU µs/event') / base.cpuUs;
}

async function shortTurn(): Promise<number> {
  const base = await floorTurns(scriptFloor, 64, 40, SHORT);
  return numberOf(await run('short'), 'CPU µs/turn') / base;
}

async function halfClose(): Promise<number> {
  const numbers = await run('session');
  return numberOf(numbers, 'half-close → status ms') / numberOf(numbers, 'turn ms');
}

async function history(): Promise<number> {
  const numbers = await run('history1');
  return numberOf(numbers, 'CPU ms/turn') / numberOf(numbers, 'first turn CPU ms');
}

async function upload(): Promise<number> {
  return numberOf(await run('upload'), 'turn ms') / ROUND_TRIP_MS;
}

function run(name: keyof typeof CASES): Promise<Numbers> {
  const found = CASES[name];
  if (found === undefined) throw new Error(`no case ${name}`);
  return found.run(scripted);
}

function numberOf(numbers: Numbers, name: string): number {
  const value = numbers[name];
  if (value === undefined) throw new Error(`no ${name} was measured`);
  return value;
}
