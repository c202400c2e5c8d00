import { describe, expect, it } from 'vitest';
import { Fingerprints } from '../../src/core/fingerprint.ts';
import type { CreateBody, StartTurn } from '../../src/core/types.ts';
import { ready, type StartOptions } from './world.ts';

const fingerprint = (request: StartTurn) => new Fingerprints().of(request);
const CREATE: CreateBody = {
  fields: new Map([
    ['model', '"m"'],
    ['instructions', '"Be brief."'],
    ['tools', '[]'],
  ]),
  input: ['{"role":"user","content":"one"}', '{"role":"user","content":"two"}'],
  previousResponseId: undefined,
  model: 'm',
  store: true,
  generate: true,
  usesConversation: false,
};
const TURN: StartTurn = {
  kind: 'startTurn',
  laneId: 'a',
  turnId: 't',
  create: CREATE,
  chain: { kind: 'automatic' },
  inputMode: 'incremental',
  timeoutMs: undefined,
  waitOnRateLimit: false,
  traceContext: undefined,
};
const withFields = (...fields: [string, string][]) => ({
  create: { ...CREATE, fields: new Map([...CREATE.fields, ...fields]) },
});
const withInput = (...input: string[]) => ({ create: { ...CREATE, input } });

describe('the fingerprint of a request', () => {
  it.each<[string, Partial<StartTurn>]>([
    ['another model', withFields(['model', '"x"'])],
    ['other instructions of the same length', withFields(['instructions', '"Be great."'])],
    ['one more field', withFields(['temperature', '1'])],
    ['another lane', { laneId: 'b' }],
    ['another input mode', { inputMode: 'fullHistory' }],
    ['a new conversation', { chain: { kind: 'newConversation' } }],
    ['another parent', { chain: { kind: 'from', responseId: 'resp_1' } }],
    ['another parent of two', { chain: { kind: 'from', responseId: 'resp_2' } }],
    ['a parent in the body', { create: { ...CREATE, previousResponseId: 'resp_1' } }],
    ['another first item', withInput('{"role":"user","content":"ONE"}', CREATE.input[1] as string)],
    ['another order', withInput(...[...CREATE.input].reverse())],
    ['an item less', withInput(CREATE.input[0] as string)],
    ['items with the border elsewhere', withInput(CREATE.input.join(''))],
  ])('differs for %s', (_, change) => {
    expect(fingerprint({ ...TURN, ...change })).not.toBe(fingerprint(TURN));
  });

  it('is the same for the same request, however long its client waits and whoever traces it', () => {
    const again = { timeoutMs: 5, waitOnRateLimit: true, traceContext: { traceparent: 'x' } };
    const fields = new Map([...CREATE.fields].reverse());
    expect(fingerprint({ ...TURN, ...again, create: { ...CREATE, fields } })).toBe(fingerprint(TURN));
  });
});

it('is the same from a session that has seen the settings before and one that has not', () => {
  const long = (n: number) => ({
    ...TURN,
    ...withFields(['instructions', JSON.stringify(`${n}${'x'.repeat(5_000)}`)]),
  });
  const seen = new Fingerprints();
  for (let n = 0; n < 20; n += 1) seen.of(long(n % 10));
  expect(seen.of(long(3))).toBe(fingerprint(long(3)));
  expect(seen.of(long(4))).not.toBe(fingerprint(long(3)));
});

it.each<[string, StartOptions]>([
  ['another model', { fields: { model: '"other"' } }],
  ['other instructions', { fields: { instructions: '"other"' } }],
  ['another chain', { chain: { kind: 'newConversation' } }],
])('a turn id that is used again with %s is refused, while the turn runs and after it', (_, change) => {
  const world = ready();
  const rejected = () => world.received.filter(({ type }) => type === 'gateway.request.rejected');
  world.start({ turn: 't1', text: 'x' });
  world.start({ turn: 't1', text: 'x', ...change });
  world.settle();
  world.start({ turn: 't1', text: 'x', ...change });
  world.start({ turn: 't1', text: 'x' });
  world.settle();
  expect(rejected().map(({ turnFailed }) => turnFailed?.error.reason)).toEqual([
    'TURN_ID_REUSED',
    'TURN_ID_REUSED',
  ]);
  expect(world.outcomes('t1')).toHaveLength(1);
});
