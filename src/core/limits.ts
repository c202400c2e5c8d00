import type { SessionLimits } from './types.ts';

const MIB = 1024 * 1024;

/** Defaults, each with its reason. */
export const DEFAULT_SESSION_LIMITS: SessionLimits = Object.freeze({
  // Almost a second of the fastest published stream (4,000 tokens/s at some 300 bytes an event); the sockets on
  // both sides hold more. Twenty clients that read nothing are to cost no more than one that replays.
  maxBufferedBytes: MIB,
  // A client that went away mid-burst has at most its transport windows in flight; this is far above them.
  maxResumeBytes: 2 * MIB,
  // The upstream takes 16 MiB in one frame, so a longer transcript could not be replayed anyway.
  maxTranscriptBytes: 16 * MIB,
  maxQueuedTurnsPerLane: 64,
  // Bounds the table of lanes, not their use: idle lanes cost no link.
  maxLanes: 10_000,
  // 16 links × 16 in flight: more parallel turns than any published rate limit lets through.
  maxLinks: 16,
  // upstream.md#frames: the upstream closes 1009 above 16 MiB.
  maxFrameBytes: 16 * MIB,
  resumeGraceMs: 60_000,
  // NATS cuts a slow consumer after 10 s; twice that leaves room for a client's long garbage collection.
  slowClientTimeoutMs: 20_000,
  // A steer's answer comes within the boundary of one output item; after the terminal it is immediate.
  steerSettleMs: 10_000,
  redialMinMs: 200,
  redialMaxMs: 5_000,
  maxDialAttempts: 5,
  defaultTurnTimeoutMs: undefined,
  // Reasoning models have been silent for twenty minutes before their first output.
  silentTurnTimeoutMs: 30 * 60_000,
});
