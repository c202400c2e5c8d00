import {
  constants,
  type NodeGCPerformanceDetail,
  type PerformanceEntry,
  PerformanceObserver,
} from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Node's types tell of `detail` only where they know the kind of the entry. */
type GcEntry = PerformanceEntry & { readonly detail: NodeGCPerformanceDetail };
type Collect = (options?: { readonly type: 'minor' | 'major' }) => void;

let gc: Collect | undefined;

/** V8's own function, which Node gives to nobody who does not ask for it at its start. */
function collector(): Collect {
  if (gc === undefined) {
    setFlagsFromString('--expose-gc');
    gc = runInNewContext('gc') as Collect;
  }
  return gc;
}

/** Collects all garbage now. Nothing else runs for some tenths of a second where the heap is large. */
export function collectGarbage(): void {
  collector()();
}

/** V8 of Node 22 does not know the flag, and says so on the standard error each time. */
const HAS_MEMORY_SAVER = Number.parseInt(process.versions.v8, 10) >= 13;

/** A collection that V8 has begun ends within tenths of a second, unless the process has become busy. */
const MAX_TRIM_MS = 2_000;

/**
 * Has V8 collect garbage and give its free pages back to the system, in steps beside other work; the last one takes some ten
 * milliseconds for each 100 MB. By itself V8 keeps pages that it freed, and what it would give them back by, the "memory
 * reducer", waits for an allocation rate that it takes anew only when something is allocated. Does
 * nothing on Node 22. Resolves when it is done.
 */
export function trimHeap(): Promise<void> {
  if (!HAS_MEMORY_SAVER) return Promise.resolve();
  // At the end of a small collection V8 looks whether a large one is due.
  const begin = () => collector()({ type: 'minor' });
  return new Promise((resolve) => {
    const stop = () => {
      clearTimeout(timer);
      observer.disconnect();
      setFlagsFromString('--no-memory-saver-mode');
      setFlagsFromString('--incremental-marking-soft-trigger=0');
      resolve();
    };
    let hasBegun = false;
    const observer = new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const { kind } = (entry as GcEntry).detail;
        if (kind === constants.NODE_PERFORMANCE_GC_INCREMENTAL) hasBegun = true;
        if (kind !== constants.NODE_PERFORMANCE_GC_MAJOR) continue;
        if (hasBegun) return stop();
        // It had begun before it was known that pages are to go back.
        begin();
      }
    });
    const timer = setTimeout(stop, MAX_TRIM_MS);
    observer.observe({ entryTypes: ['gc'] });
    setFlagsFromString('--memory-saver-mode');
    setFlagsFromString('--incremental-marking-soft-trigger=1');
    begin();
  });
}
