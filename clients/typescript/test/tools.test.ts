import { expect, test } from 'vitest';
import { z } from 'zod';
import { TurnLimitError, tool } from '../src/index.ts';
import type { InputItem } from '../src/proto.ts';
import { answer, completed, connectTo, functionCall } from './fake-gateway.ts';

const outputs = (input: readonly InputItem[] | undefined) =>
  input?.map(({ kind }) =>
    kind.case === 'functionCallOutput' ? [kind.value.callId, kind.value.output] : kind.case,
  );

test('the schema lists members in their order, closed and strict', () => {
  const { spec } = tool({
    name: 'find',
    description: 'Finds.',
    input: z.object({
      b: z.string().describe('text'),
      a: z.array(z.object({ n: z.int() })),
      c: z.enum(['x', 'y']),
    }),
    run: () => '',
  });
  if (spec.kind.case !== 'function') throw new Error('no function');
  const { parameters, strict, description } = spec.kind.value;
  const schema = JSON.parse(new TextDecoder().decode(parameters));
  expect(Object.keys(schema.properties)).toEqual(['b', 'a', 'c']);
  expect(schema).toMatchObject({ type: 'object', additionalProperties: false, required: ['b', 'a', 'c'] });
  expect(schema.properties.a.items.additionalProperties).toBe(false);
  expect(schema).not.toHaveProperty('$schema');
  expect([strict, description]).toEqual([true, 'Finds.']);
});

test('optional members and open objects are not strict', () => {
  for (const input of [
    z.object({ a: z.string().optional() }),
    z.looseObject({}),
    z.object({ m: z.record(z.string(), z.string()) }),
  ]) {
    const { spec } = tool({ name: 'find', input, run: () => '' });
    expect(spec.kind.case === 'function' && spec.kind.value.strict).toBe(false);
  }
});

test('calls run side by side; errors, unknown names and unfit arguments become results', async () => {
  const session = await connectTo({ model: 'm' }, async (gateway) => {
    await gateway.accept();
    const first = await gateway.startTurn();
    expect(first.create?.tools.length).toBe(3);
    gateway.events(
      completed(
        first,
        'r1',
        functionCall('c1', 'slow', '{"q":"a"}'),
        functionCall('c2', 'quick', '{"q":"b"}'),
        functionCall('c3', 'bad', '{"q":"c"}'),
        functionCall('c4', 'missing', '{}'),
        functionCall('c5', 'quick', '{"q":1}'),
        functionCall('c6', 'quick', '{'),
      ),
    );
    const second = await gateway.startTurn();
    const results = outputs(second.create?.input);
    expect(results?.slice(0, 4)).toEqual([
      ['c1', 'after b'],
      ['c2', '{"got":"b"}'],
      ['c3', '{"error":"no luck"}'],
      ['c4', '{"error":"there is no function missing"}'],
    ]);
    expect(results?.[4]?.[1]).toContain('the arguments do not fit the schema');
    expect(results?.[5]?.[1]).toContain('the arguments are no JSON');
    expect(second.create?.tools.length).toBe(3);
    expect(second.create?.toolChoice).toBeUndefined();
    gateway.events(completed(second, 'r2', answer('done')));
    await gateway.drain();
  });
  const quickRan = Promise.withResolvers<string>();
  const input = z.object({ q: z.string() });
  const result = await session.lane('tools').runTools(
    { input: 'go', create: { toolChoice: { kind: { case: 'mode', value: 'required' } } } },
    {
      functions: [
        tool({ name: 'slow', input, run: async () => `after ${await quickRan.promise}` }),
        tool({
          name: 'quick',
          input,
          run: ({ q }) => {
            quickRan.resolve(q);
            return { got: q };
          },
        }),
        tool({
          name: 'bad',
          input,
          run: () => {
            throw new Error('no luck');
          },
        }),
      ],
    },
  );
  expect(result.text).toBe('done');
});

test('ends at its limit with the last result', async () => {
  const session = await connectTo({}, async (gateway) => {
    await gateway.accept();
    for (;;) {
      const turn = await gateway.startTurn().catch(() => undefined);
      if (!turn) return;
      gateway.events(completed(turn, turn.turnId, functionCall('c', 'f', '{}')));
    }
  });
  let calls = 0;
  const f = tool({ name: 'f', input: z.object({}), run: () => ++calls });
  const run = session.lane('').runTools({ input: 'go' }, { functions: [f], maxTurns: 3 });
  const error = await run.catch((problem: unknown) => problem);
  expect(error).toBeInstanceOf(TurnLimitError);
  expect(error).toMatchObject({ result: { responseId: 'turn-3' } });
  expect(calls).toBe(2);
});
