import type { MarkView, TurnView } from '../../src/admin/api.ts';

/** From times to places: stretches in which nothing happens are drawn short. */
export interface Timeline {
  /** Of the whole, in milliseconds as drawn. */
  readonly length: number;
  place(atMs: number): number;
  /** What was shortened: where it is drawn, and how long it was. */
  readonly breaks: readonly { readonly at: number; readonly skippedMs: number }[];
  readonly startMs: number;
  /** Ticks at round times, `about` of them. */
  ticks(about: number): readonly { readonly at: number; readonly label: string }[];
}

type Span = readonly [startMs: number, endMs: number];

/** A rest longer than this share of all that happens is shortened to it. */
const REST_SHARE = 0.06;
const MIN_REST_MS = 400;

export function timeline(
  turns: readonly TurnView[],
  marks: readonly MarkView[],
  nowMs: number,
  shorten: boolean,
): Timeline {
  const busy = merged([
    ...turns.map((turn): Span => [turn.acceptedAtMs - (turn.toolsMs ?? 0), turn.endedAtMs ?? nowMs]),
    ...marks.map((mark): Span => [mark.startedAtMs, mark.endedAtMs]),
  ]);
  if (busy.length === 0) busy.push([nowMs - 1_000, nowMs]);
  const startMs = busy[0]?.[0] ?? 0;
  const total = busy.reduce((sum, [start, end]) => sum + end - start, 0);
  const rest = shorten ? Math.max(MIN_REST_MS, total * REST_SHARE) : Number.POSITIVE_INFINITY;
  const pieces: { span: Span; at: number; scale: number }[] = [];
  const breaks: { at: number; skippedMs: number }[] = [];
  let at = 0;
  let lastEnd = startMs;
  for (const span of busy) {
    const gap = span[0] - lastEnd;
    if (gap > 0) {
      const drawn = Math.min(gap, rest);
      pieces.push({ span: [lastEnd, span[0]], at, scale: drawn / gap });
      if (drawn < gap) breaks.push({ at: at + drawn / 2, skippedMs: gap });
      at += drawn;
    }
    pieces.push({ span, at, scale: 1 });
    at += span[1] - span[0];
    lastEnd = span[1];
  }
  const length = Math.max(1, at);
  const place = (atMs: number): number => {
    if (atMs <= startMs) return 0;
    const piece = pieces.findLast(({ span }) => span[0] <= atMs);
    if (piece === undefined) return 0;
    return Math.min(length, piece.at + (Math.min(atMs, piece.span[1]) - piece.span[0]) * piece.scale);
  };
  return {
    length,
    place,
    breaks,
    startMs,
    ticks: (about) => {
      const step = roundStep(length / about);
      const ticks = [];
      for (let tick = 0; tick <= length; tick += step) ticks.push({ at: tick, label: tickLabel(tick) });
      return ticks;
    },
  };
}

function merged(spans: readonly Span[]): [number, number][] {
  const result: [number, number][] = [];
  for (const [start, end] of spans.toSorted(([one], [other]) => one - other)) {
    const last = result.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else result.push([start, Math.max(start, end)]);
  }
  return result;
}

function roundStep(step: number): number {
  const size = 10 ** Math.floor(Math.log10(Math.max(1, step)));
  return ([1, 2, 5, 10].find((factor) => factor * size >= step) ?? 10) * size;
}

function tickLabel(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${Number((ms / 1_000).toFixed(1))} s`;
  return `${Math.floor(ms / 60_000)} m ${Math.round((ms % 60_000) / 1_000)} s`;
}
