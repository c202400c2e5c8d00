import { METRICS, type MetricFacts, typeOf } from './metrics-table.ts';
import { prometheusName } from './prometheus-names.ts';

interface Family {
  readonly comments: string[];
  /** Sample name with its labels, as written → value. */
  readonly samples: Map<string, number>;
}

/**
 * Adds up the Prometheus texts of several processes of one gateway. Counters, histograms and sizes become sums; what
 * has no sum (delays, utilization, flags) becomes the worst of all; `target_info` is the first one's.
 */
export function mergeMetrics(texts: readonly string[]): string {
  const families = new Map<string, Family>();
  for (const [at, text] of texts.entries()) mergeInto(families, text, at === 0);
  let merged = '';
  for (const { comments, samples } of families.values()) {
    if (samples.size === 0) continue;
    merged += `${comments.join('\n')}\n`;
    for (const [name, value] of samples) merged += `${name} ${render(value)}\n`;
  }
  return merged;
}

const TARGET_INFO = 'target_info';
const MAXIMA: ReadonlySet<string> = new Set(
  Object.entries<MetricFacts>(METRICS)
    .filter(([, facts]) => facts.merge === 'max')
    .flatMap(([name, { kind, unit }]) =>
      [true, false].map((unitSuffixes) => prometheusName(name, typeOf(kind), unit, unitSuffixes)),
    ),
);
// The value is what follows the last space: labels may hold spaces and braces, values may not.
const SAMPLE = /^(.+) (\S+)$/;
const COMMENT = /^# (?:HELP|UNIT|TYPE) (\S+)/;

function mergeInto(families: Map<string, Family>, text: string, first: boolean): void {
  let name = '';
  let known = false;
  for (const line of text.split('\n')) {
    const comment = COMMENT.exec(line)?.[1];
    if (comment !== undefined) {
      // Each family's comments stand together before its samples.
      if (comment !== name) known = families.has(comment);
      name = comment;
      const family = families.get(name) ?? { comments: [], samples: new Map<string, number>() };
      families.set(name, family);
      if (!known) family.comments.push(line);
      continue;
    }
    const [, key, value] = SAMPLE.exec(line) ?? [];
    const samples = families.get(name)?.samples;
    if (key === undefined || value === undefined || samples === undefined) continue;
    if (name === TARGET_INFO && !first) continue;
    const number = parse(value);
    const before = samples.get(key);
    if (before === undefined) samples.set(key, number);
    else samples.set(key, MAXIMA.has(name) ? Math.max(before, number) : before + number);
  }
}

function parse(value: string): number {
  if (value === '+Inf') return Number.POSITIVE_INFINITY;
  return value === '-Inf' ? Number.NEGATIVE_INFINITY : Number(value);
}

function render(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  return value === Number.NEGATIVE_INFINITY ? '-Inf' : String(value);
}
