/** What a metric becomes on the page. */
export type PrometheusType = 'counter' | 'gauge' | 'histogram';

/** The units that have a word of their own in Prometheus; those in braces (`{turn}`) say what is counted. */
const UNIT_WORDS: Readonly<Record<string, string>> = { s: 'seconds', By: 'bytes' };

/**
 * The name in Prometheus text by OpenTelemetry's rules: dots become underscores, units are appended as words
 * (`_seconds`, `_bytes`, and `_ratio` for gauges without a unit), and counters end in `_total`. Without `unitSuffixes`
 * units are left out, as up to 0.1.
 */
export function prometheusName(
  name: string,
  type: PrometheusType,
  unit: string,
  unitSuffixes = true,
): string {
  const base = escaped(name);
  const word = unit === '1' && type === 'gauge' ? 'ratio' : UNIT_WORDS[unit];
  const united = unitSuffixes && word !== undefined ? ending(base, word) : base;
  return type === 'counter' ? ending(united, 'total') : united;
}

export function prometheusLabel(name: string): string {
  return escaped(name);
}

function ending(name: string, word: string): string {
  return name.endsWith(`_${word}`) ? name : `${name}_${word}`;
}

function escaped(name: string): string {
  return name.replaceAll(/[^a-zA-Z0-9_]+/g, '_').replaceAll(/_{2,}/g, '_');
}
