import type { JournalEntry, SimulatorOptions } from '../../src/simulator/index.ts';

/** A case, as far as the driver looks at it; `steps` are the runner's. README.md describes all of it. */
export interface Case {
  readonly name: string;
  readonly doc?: string;
  /** Two gateways with a store, instead of one in this process. */
  readonly replicas?: boolean;
  readonly gateway?: Readonly<Record<string, unknown>>;
  /** The gateway's price table. */
  readonly prices?: Readonly<Record<string, unknown>>;
  readonly simulator?: SimulatorOptions;
  readonly steps: readonly unknown[];
  readonly journal?: ExpectedJournal;
}

export interface ExpectedJournal {
  readonly requests?: number;
  readonly connections?: number;
  /** The first entries of the journal, in order; each field that is given must hold. */
  readonly entries?: readonly ExpectedEntry[];
}

export interface ExpectedEntry {
  readonly lane?: string;
  readonly model?: string;
  readonly status?: JournalEntry['status'];
  readonly warm_up?: boolean;
  /** Index of the entry whose response it continues; null: none. */
  readonly previous?: number | null;
  readonly input_items?: number;
  /** `output` of each input item. */
  readonly input_outputs?: readonly string[];
  /** Members that the request must have; objects may have more. */
  readonly request?: unknown;
}

/** Says what is different; nothing if all is as expected. */
export function compareJournal(
  expected: ExpectedJournal,
  entries: readonly JournalEntry[],
  connections: number,
): readonly string[] {
  const problems: string[] = [];
  const compare = (what: string, wanted: unknown, found: unknown) => {
    if (wanted === undefined || JSON.stringify(wanted) === JSON.stringify(found)) return;
    problems.push(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
  };
  compare('requests', expected.requests, entries.filter(({ successorOf }) => successorOf === null).length);
  compare('connections', expected.connections, connections);
  expected.entries?.forEach((wanted, index) => {
    const entry = entries[index];
    if (entry === undefined) {
      problems.push(`entry ${index}: missing`);
      return;
    }
    const input = entry.request?.['input'];
    const items: unknown[] = Array.isArray(input) ? input : [];
    const previous = entry.previousResponseId;
    compare(`entry ${index} lane`, wanted.lane, entry.lane);
    compare(`entry ${index} model`, wanted.model, entry.request?.['model']);
    compare(`entry ${index} status`, wanted.status, entry.status);
    compare(`entry ${index} warm_up`, wanted.warm_up, entry.warmUp);
    compare(`entry ${index} input_items`, wanted.input_items, items.length);
    compare(
      `entry ${index} previous`,
      wanted.previous,
      previous === null ? null : entries.findIndex(({ responseId }) => responseId === previous),
    );
    if (wanted.request !== undefined && !contains(entry.request, wanted.request)) {
      problems.push(
        `entry ${index} request: ${JSON.stringify(entry.request)} has not ${JSON.stringify(wanted.request)}`,
      );
    }
    compare(
      `entry ${index} input_outputs`,
      wanted.input_outputs,
      items.map((item) => (item as { output?: unknown }).output),
    );
  });
  return problems;
}

function contains(found: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(found) &&
      found.length === wanted.length &&
      wanted.every((each, index) => contains(found[index], each))
    );
  }
  if (typeof wanted !== 'object' || wanted === null) return found === wanted;
  if (typeof found !== 'object' || found === null) return false;
  return Object.entries(wanted).every(([key, each]) =>
    contains((found as Record<string, unknown>)[key], each),
  );
}
