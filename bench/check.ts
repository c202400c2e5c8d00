/**
 * Fails when an event costs much more than the floor of the same run: a regression check that a slow or busy machine
 * does not upset. Ratios only, medians of short rounds side by side, bounds well above what is measured.
 */
import { startGateway, startScript, startSimulator } from './support/processes.ts';
import { overFloor, overGateway } from './support/relay-load.ts';
import { median, round } from './support/report.ts';

/** Measured: about 1.4 and 1.5 on an idle machine, 2 on one with many neighbours (docs/performance.md). */
const BOUNDS = { TYPED: 3, JSON: 3 } as const;
const STREAMS = 8;
/** Enough that compiling and the clock's 10 ms do not show. */
const DELTAS = 5_000;
const ROUNDS = 5;

const simulator = await startSimulator();
const url = `ws://${simulator.address}/v1`;
const floor = await startScript(new URL('floor.ts', import.meta.url), [url]);
const gateway = await startGateway(url);
const ratios: Record<keyof typeof BOUNDS, number[]> = { TYPED: [], JSON: [] };
for (let n = -1; n < ROUNDS; n += 1) {
  const base = await overFloor(floor, STREAMS, DELTAS);
  for (const payload of ['TYPED', 'JSON'] as const) {
    const { cpuUs } = await overGateway(gateway, payload, STREAMS, DELTAS);
    // The first round only warms up.
    if (n >= 0) ratios[payload].push(cpuUs / base.cpuUs);
  }
}
for (const service of [gateway, floor, simulator]) await service.stop();

let failed = false;
for (const payload of ['TYPED', 'JSON'] as const) {
  const ratio = median(ratios[payload]);
  const ok = ratio <= BOUNDS[payload];
  failed ||= !ok;
  process.stdout.write(
    `${payload}: ${round(ratio)} × the floor, at most ${BOUNDS[payload]}: ${ok ? 'ok' : 'TOO SLOW'}\n`,
  );
}
process.exit(failed ? 1 : 0);
