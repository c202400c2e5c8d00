import { METRICS, type MetricFacts, typeOf } from './metrics-table.ts';
import { prometheusName } from './prometheus-names.ts';

const GROUPS = [
  {
    title: 'GenAI client metrics',
    prefix: 'gen_ai.',
    text:
      'Names and buckets of the OpenTelemetry GenAI conventions, with two buckets above theirs for long reasoning ' +
      'turns. `telemetry.genai_semconv` chooses their version: `0.1.0` (default; the first of ' +
      '[semantic-conventions-genai](https://github.com/open-telemetry/semantic-conventions-genai)), `1.41` (the last ' +
      'of the main conventions), or `both`. `OTEL_SEMCONV_STABILITY_OPT_IN` with `gen_ai_latest_experimental` chooses ' +
      '`0.1.0`, with `gen_ai_latest_experimental/dup` both. The conventions have one value of `time_per_output_chunk` ' +
      'for each chunk; the gateway records one for each turn, since it does nothing for a delta that it can do once.',
  },
  {
    title: 'RPC server metrics',
    prefix: 'rpc.',
    text: 'By the OpenTelemetry RPC conventions 1.45.',
  },
  { title: "The gateway's own", prefix: 'responses_gateway.', text: '' },
  { title: 'The process', prefix: '', text: 'By the Node.js and process conventions.' },
];

/** docs/metrics.md, of the table. */
export function renderMetricsDoc(): string {
  const left = new Map(Object.entries<MetricFacts>(METRICS));
  const sections = GROUPS.map(({ title, prefix, text }) => {
    const rows: string[] = [];
    for (const [name, facts] of left) {
      if (!name.startsWith(prefix)) continue;
      left.delete(name);
      rows.push(row(name, facts));
    }
    return `## ${title}\n\n${text === '' ? '' : `${text}\n\n`}${rows.join('\n')}`;
  });
  return `${INTRODUCTION}\n${sections.join('\n')}`;
}

const INTRODUCTION = `# Metrics

Generated from \`src/telemetry/metrics-table.ts\` by \`npm run generate\`; do not edit by hand.

All metrics are at \`/metrics\` of the admin port as Prometheus text, and go to a collector by OTLP when one is
configured. Prometheus names are made by OpenTelemetry's rules: underscores for dots, then the unit as a word
(\`_seconds\`, \`_bytes\`, \`_ratio\`), and counters end in \`_total\`. Release 0.1 had no units in its names;
\`telemetry.metrics.unit_suffixes: false\` keeps those names for one more release.

Counters are there from the start, at 0, so that a rate sees their first count: for each value of a label with a closed
list, and for the upstreams, models (\`telemetry.metrics.models\`) and tenants that the configuration names. A model or
an error code of an upstream that nobody could know before starts with its first count.

With \`--workers\` the page is the sum over all workers; where a sum means nothing (delays, utilization, flags)
it is the highest.

No label holds an id. Labels with an open set of values are bounded: models that are not on the list (or were not
among the first that completed a turn) are \`_OTHER\`, and so are tenants beyond \`telemetry.metrics.max_tenants\`; with
the default of 0 there is no tenant label at all. \`error.type\` is a known code of the upstream, else the gateway's
own reason ([operations.md](operations.md#what-each-error-reason-means)).
`;

function row(name: string, facts: MetricFacts): string {
  const lines = [
    `### \`${name}\``,
    '',
    `${facts.description}`,
    '',
    `- Prometheus: \`${prometheusName(name, typeOf(facts.kind), facts.unit)}\`, ${typeOf(facts.kind)}, unit \`${facts.unit}\``,
  ];
  if (facts.labels.length > 0)
    lines.push(`- Labels: ${facts.labels.map((label) => `\`${label}\``).join(', ')}`);
  if (facts.boundaries !== undefined) lines.push(`- Buckets: ${facts.boundaries.join(', ')}`);
  if (facts.semconv !== undefined) lines.push(`- Conventions: ${facts.semconv}`);
  if (facts.merge === 'max') lines.push('- Over workers: the highest');
  if (facts.alert !== undefined) lines.push(`- Watch: ${facts.alert}`);
  return `${lines.join('\n')}\n`;
}
