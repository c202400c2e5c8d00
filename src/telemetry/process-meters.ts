import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import type { Instruments } from './meters.ts';

// Several readers (a scrape, a push) ask for the same numbers; each must not empty them for the other.
const SNAPSHOT_AGE_MS = 5_000;
const EVENT_LOOP_RESOLUTION_MS = 20;
const NANOS = 1e9;

/** What Node tells about itself. The returned function stops the timer behind the event-loop numbers. */
export function observeProcess(instruments: Instruments): () => void {
  const loop = eventLoop();
  instruments.observe('nodejs.eventloop.delay.mean', () => loop.read().mean);
  instruments.observe('nodejs.eventloop.delay.p99', () => loop.read().p99);
  instruments.observe('nodejs.eventloop.delay.max', () => loop.read().max);
  instruments.observe('nodejs.eventloop.utilization', () => loop.read().utilization);
  instruments.observe('process.cpu.time', () => {
    const { user, system } = process.cpuUsage();
    return [
      [user / 1e6, { 'cpu.mode': 'user' }],
      [system / 1e6, { 'cpu.mode': 'system' }],
    ];
  });
  instruments.observe('process.memory.usage', () => process.memoryUsage.rss());
  instruments.observe('process.uptime', () => process.uptime());
  instruments.observe('v8js.memory.heap.used', () => getHeapStatistics().used_heap_size);
  instruments.observe('v8js.memory.heap.limit', () => getHeapStatistics().heap_size_limit);
  return loop.stop;
}

function eventLoop() {
  const histogram = monitorEventLoopDelay({ resolution: EVENT_LOOP_RESOLUTION_MS });
  histogram.enable();
  let utilization = performance.eventLoopUtilization();
  let takenAt = Number.NEGATIVE_INFINITY;
  let snapshot = { mean: 0, p99: 0, max: 0, utilization: 0 };
  return {
    read() {
      if (performance.now() - takenAt < SNAPSHOT_AGE_MS) return snapshot;
      const now = performance.eventLoopUtilization();
      const empty = histogram.count === 0;
      snapshot = {
        mean: empty ? 0 : delay(histogram.mean),
        p99: empty ? 0 : delay(histogram.percentile(99)),
        max: empty ? 0 : delay(histogram.max),
        utilization: performance.eventLoopUtilization(now, utilization).utilization,
      };
      histogram.reset();
      utilization = now;
      takenAt = performance.now();
      return snapshot;
    },
    stop: () => void histogram.disable(),
  };
}

/** Node measures the whole interval between ticks of its timer; what is over the interval is the delay. */
function delay(nanos: number): number {
  return Math.max(0, nanos / NANOS - EVENT_LOOP_RESOLUTION_MS / 1_000);
}
