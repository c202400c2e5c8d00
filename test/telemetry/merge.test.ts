import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';
import { mergeMetrics } from '../../src/telemetry/merge.ts';
import { createTelemetry } from '../../src/telemetry/telemetry.ts';
import { accepted, record, start } from './facts.ts';
import { Page } from './prometheus.ts';

async function worker(turns: number, model: string): Promise<string> {
  const t = await createTelemetry({ logs: { level: 'silent' }, env: {} });
  const session = t.session(start());
  for (let i = 0; i < turns; i += 1) {
    session.fact(accepted({ turnId: `t${i}`, atMs: 1, model }));
    session.fact({
      kind: 'turnEnded',
      record: record({ turnId: `t${i}`, acceptedAtMs: 1, requestModel: model, responseModel: model }),
    });
  }
  t.observe('draining', () => turns % 2);
  const text = await t.metricsText();
  session.end('OK');
  await t.shutdown();
  return text;
}

describe('the page of several workers', () => {
  it('is the sum of theirs', async () => {
    const texts = [await worker(3, 'a'), await worker(4, 'a'), await worker(5, 'b "quoted" {x} 1')];
    const p = new Page(mergeMetrics(texts));
    expect(p.sum('responses_gateway_turns_total')).toBe(12);
    expect(p.sum('responses_gateway_turns_total', { gen_ai_request_model: 'a' })).toBe(7);
    expect(p.sum('responses_gateway_sessions_active')).toBe(3);
    const duration = p.histogram('gen_ai_client_inference_duration_seconds', { gen_ai_request_model: 'a' });
    expect(duration.count).toBe(7);
    expect(duration.sum).toBeCloseTo(7 * 0.9);
    expect(duration.buckets).toMatchObject({ '0.64': 0, '1.28': 7, '+Inf': 7 });
    // A flag and a delay have no sum; the target is one gateway.
    expect(p.sum('responses_gateway_draining')).toBe(1);
    expect(p.series('target_info')).toHaveLength(1);
    expect([...p.types.keys()].toSorted()).toEqual([...new Page(texts[0] ?? '').types.keys()].toSorted());
  });

  it('of one worker is what the worker wrote', async () => {
    const text = await worker(2, 'a');
    expect(mergeMetrics([text]).trim().split('\n').filter(Boolean).toSorted()).toEqual(
      text.trim().split('\n').filter(Boolean).toSorted(),
    );
  });

  const series = fc.dictionary(
    fc.constantFrom('a', 'b', 'c {x="y z"}', 'd\\"e'),
    fc.integer({ min: 0, max: 1_000 }),
    { maxKeys: 4 },
  );
  const render = (values: Record<string, number>): string =>
    Object.keys(values).length === 0
      ? '# no registered metrics'
      : `# HELP x_total Help text\n# TYPE x_total counter\n${Object.entries(values)
          .map(([label, value]) => `x_total{l="${label.replaceAll(/["\\]/g, '\\$&')}"} ${value}\n`)
          .join('')}`;

  test.prop([fc.array(series, { maxLength: 5 })])(
    'adds each series up, whatever its labels hold',
    (pages) => {
      const merged = mergeMetrics(pages.map(render));
      const expected = new Map<string, number>();
      for (const page of pages) {
        for (const [label, value] of Object.entries(page))
          expected.set(label, (expected.get(label) ?? 0) + value);
      }
      if (expected.size === 0) {
        expect(merged).toBe('');
        return;
      }
      const found = new Page(merged).series('x_total').map(({ labels, value }) => [labels['l'], value]);
      expect(new Map(found as [string, number][])).toEqual(expected);
    },
  );
});
