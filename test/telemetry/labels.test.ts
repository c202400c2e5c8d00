import { expect, it } from 'vitest';
import { boundedLabel, OTHER } from '../../src/telemetry/labels.ts';

it.each(['x'.repeat(129), 'a\nb', 'a\u0000', ''])('a name like %j makes no series', (name) => {
  const names = boundedLabel(10);
  names.learn(name);
  names.learn('gpt-6');
  expect([names.of(name), names.of('gpt-6')]).toEqual([OTHER, 'gpt-6']);
});
