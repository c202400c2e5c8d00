/** Writes docs/metrics.md from the table of metrics. */
import { renderMetricsDoc } from '../../src/telemetry/metrics-doc.ts';
import { write } from './write.ts';

write({ 'docs/metrics.md': renderMetricsDoc() });
