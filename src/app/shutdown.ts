export type Signal = 'SIGINT' | 'SIGTERM';

/** 128 + the number of the signal, as shells report it. */
const SIGNAL_EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const satisfies Record<Signal, number>;

/**
 * Resolves at the first SIGINT or SIGTERM; from then on the second one ends the process at once. `abort` resolves it
 * without a signal.
 */
export function firstSignal(): Promise<Signal> {
  return new Promise((resolve) => {
    let first = true;
    const onSignal = (signal: Signal) => {
      if (!first) process.exit(SIGNAL_EXIT_CODES[signal]);
      first = false;
      resolve(signal);
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  });
}
