import { knownUpstreamCode } from '../ground/upstream-codes.ts';

/** The value of a bounded label for everything that is not on its list. */
export const OTHER = '_OTHER';

/** Values of one label. What is not known becomes `_OTHER`, so that no client can make series without end. */
export interface LabelValues {
  of(value: string | undefined): string;
  /** The value has proved to be real (a model that answered, a tenant that authenticated). */
  learn(value: string | undefined): void;
}

/** Names come from upstreams too: one of a megabyte would be in every scrape. */
const MAX_LENGTH = 128;
const UNPRINTABLE = /\p{Cc}/u;

/** With a list: just that. Without: what was learned first, up to `max`. */
export function boundedLabel(max: number, list?: readonly string[]): LabelValues {
  const known = new Set(list);
  return {
    of: (value) => (value !== undefined && known.has(value) ? value : OTHER),
    learn(value) {
      if (list !== undefined || value === undefined || known.has(value) || known.size >= max) return;
      if (value !== '' && value.length <= MAX_LENGTH && !UNPRINTABLE.test(value)) known.add(value);
    },
  };
}

export function errorType(reason: string, upstreamCode: string | undefined): string {
  return knownUpstreamCode(upstreamCode) ?? reason;
}

/**
 * Reasons of facts, and types of frames, come from short lists; this keeps the number of series bounded even if one day one does not.
 */
export function reasonLabel(max: number): (reason: string) => string {
  const known = new Set<string>();
  return (reason) => {
    if (known.has(reason)) return reason;
    if (known.size >= max || !/^[A-Za-z][A-Za-z0-9_.]{0,63}$/.test(reason)) return OTHER;
    known.add(reason);
    return reason;
  };
}
