import type { MemoryLimits } from '../access/options.ts';

const MIB = 1024 * 1024;

export interface MemoryBudgets {
  /** Of the heap: texts of conversations, over all sessions. */
  readonly transcriptBytes: number;
  /** Outside of it: messages that have begun to arrive. */
  readonly partialMessageBytes: number;
  /** The same for messages while they are inflated. */
  readonly inflatingBytes: number;
}

/** Enough for tens of thousands of conversations; more would not be found again in time. */
const MAX_TRANSCRIPT_BYTES = 512 * MIB;
const TRANSCRIPT_SHARE = 0.4;
/** A dozen of the largest messages at a time. */
const MAX_PARTIAL_BYTES = 256 * MIB;
const PARTIAL_SHARE = 1 / 8;
const MAX_INFLATING_BYTES = 128 * MIB;
const INFLATING_SHARE = 1 / 16;

/** What may be kept and buffered in a process that may have so much: together a good half of it. */
export function memoryBudgets({ heapBytes, rssBytes }: MemoryLimits): MemoryBudgets {
  return {
    transcriptBytes: Math.floor(Math.min(MAX_TRANSCRIPT_BYTES, heapBytes * TRANSCRIPT_SHARE)),
    partialMessageBytes: Math.floor(Math.min(MAX_PARTIAL_BYTES, rssBytes * PARTIAL_SHARE)),
    inflatingBytes: Math.floor(Math.min(MAX_INFLATING_BYTES, rssBytes * INFLATING_SHARE)),
  };
}
