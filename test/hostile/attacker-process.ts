/** A hostile client in a process of its own. Repeats one attack until it is told to stop, then says what it got. */
import { type Attack, attacks } from './attacks.ts';

export type AttackName = keyof typeof attacks;

export type AttackerAsk =
  | {
      readonly ask: 'attack';
      readonly attack: AttackName;
      readonly port: number;
      readonly key: string;
      readonly otherKey: string;
    }
  | { readonly ask: 'stop' };

export interface AttackReport {
  /** How the gateway answered: how often, and after what time half of them. */
  readonly outcomes: Readonly<Record<string, { readonly count: number; readonly p50Ms: number }>>;
}

const tookMs = new Map<string, number[]>();
let stopping = false;

process.on('disconnect', () => process.exit(0));
process.on('message', (ask: AttackerAsk) => {
  if (ask.ask === 'stop') stopping = true;
  else void run(attacks[ask.attack], ask);
});

async function run(attack: Attack, target: Extract<AttackerAsk, { ask: 'attack' }>): Promise<void> {
  process.send?.('started');
  // At least once, however fast the measurement was.
  do await attack({ ...target, note, stopped: () => stopping });
  while (!stopping);
  const outcomes = Object.fromEntries(
    [...tookMs].map(([name, times]) => {
      times.sort((a, b) => a - b);
      return [name, { count: times.length, p50Ms: times[Math.floor(times.length / 2)] ?? 0 }];
    }),
  );
  process.send?.({ outcomes });
}

function note(outcome: string, startedAtMs: number): void {
  const times = tookMs.get(outcome) ?? [];
  times.push(performance.now() - startedAtMs);
  tookMs.set(outcome, times);
}
