import parsePrometheusTextFormat from 'parse-prometheus-text-format';

type Labels = Readonly<Record<string, string>>;

interface Sample {
  readonly value: string;
  readonly labels?: Labels;
}

export interface Series {
  readonly value: number;
  readonly labels: Labels;
}

/**
 * What somebody else's parser makes of a page. It keeps only one series of a histogram, so the histograms' types are
 * taken from it: then it reads their buckets, sums and counts as the plain samples they are.
 */
export class Page {
  readonly #types = new Map<string, string>();
  readonly #samples = new Map<string, Series[]>();

  constructor(text: string) {
    const plain = text.replaceAll(/^# TYPE (\S+) histogram$/gm, (_, name: string) => {
      this.#types.set(name, 'histogram');
      return '';
    });
    for (const { name, type, metrics } of parsePrometheusTextFormat(plain)) {
      if (type !== 'UNTYPED') this.#types.set(name, type.toLowerCase());
      const known = this.#samples.get(name) ?? [];
      this.#samples.set(name, known);
      for (const { value, labels } of metrics) known.push({ value: Number(value), labels: labels ?? {} });
    }
  }

  /** Families that have at least one series, by name. */
  get types(): ReadonlyMap<string, string> {
    return this.#types;
  }

  /** Of a counter or gauge, over all series that have these labels. */
  sum(name: string, labels: Labels = {}): number {
    return this.series(name, labels).reduce((total, { value }) => total + value, 0);
  }

  /** Added up over all series that have these labels. Buckets are cumulative, by their upper bound. */
  histogram(name: string, labels: Labels = {}) {
    const buckets: Record<string, number> = {};
    for (const { value, labels: found } of this.series(`${name}_bucket`, labels)) {
      const bound = found['le'] ?? '';
      buckets[bound] = (buckets[bound] ?? 0) + value;
    }
    return { count: this.sum(`${name}_count`, labels), sum: this.sum(`${name}_sum`, labels), buckets };
  }

  /** Each once. */
  labelValues(name: string, label: string): string[] {
    return [...new Set(this.series(name).map(({ labels }) => labels[label] ?? ''))];
  }

  labelNames(family: string): Set<string> {
    const names = this.#types.get(family) === 'histogram' ? [`${family}_count`] : [family];
    return new Set(names.flatMap((name) => this.series(name)).flatMap(({ labels }) => Object.keys(labels)));
  }

  series(name: string, wanted: Labels = {}): Series[] {
    const all = this.#samples.get(name);
    if (all === undefined) throw new Error(`no samples of ${name}`);
    return all.filter(({ labels }) =>
      Object.entries(wanted).every(([label, value]) => labels[label] === value),
    );
  }
}

export interface ParsedFamily {
  readonly name: string;
  readonly type: string;
  readonly metrics: readonly Sample[];
}
