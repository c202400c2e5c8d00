import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { proveExtension } from '../../src/core/delta.ts';
import type { Step } from '../../src/core/transcript.ts';
import { inputOf, ready, sent } from './world.ts';

type Item = Readonly<Record<string, unknown>>;

interface Recorded {
  readonly framework: string;
  readonly store: boolean;
  readonly turns: readonly { readonly input: readonly Item[]; readonly output: readonly Item[] }[];
}

/**
 * What frameworks sent as the input of three requests to a server that answered with reasoning, a commentary and two
 * calls first, then with text.
 */
const RECORDED = JSON.parse(
  readFileSync(new URL('fixtures/framework-histories.json', import.meta.url), 'utf8'),
) as readonly Recorded[];

const texts = (items: readonly Item[]) => items.map((item) => JSON.stringify(item));
const stepOf = (input: readonly Item[], output: readonly Item[]) =>
  ({ input: texts(input), output: texts(output) }) as unknown as Step;
const prove = (said: readonly Item[], told: readonly Item[], input: readonly Item[] = []) =>
  proveExtension([stepOf(input, said)], texts([...input, ...told]));
const isProved = (said: readonly Item[], told: readonly Item[]) => {
  const next = { role: 'user', content: 'and now?' };
  const proof = prove(said, [...told, next]);
  return proof.ok && proof.delta.join() === JSON.stringify(next);
};

describe.each(RECORDED)('the history of $framework', ({ store, turns }) => {
  it.each([
    ['as it was done', (item: Item) => item],
    [
      'encrypted anew',
      (item: Item) => ('encrypted_content' in item ? { ...item, encrypted_content: 'other' } : item),
    ],
  ])('is known where reasoning is %s', (_, rewrite) => {
    const world = ready();
    turns.forEach(({ input, output }, n) => {
      world.start({ turn: `t${n}`, input: texts(input), mode: 'fullHistory', store });
      const frame = sent(world).at(-1);
      expect(frame?.['previous_response_id']).toBe(n === 0 ? undefined : `resp_${n - 1}`);
      expect(inputOf(frame)).toHaveLength([input.length, 2, 1][n] as number);
      world.say({ type: 'response.created', response: { id: `resp_${n}`, status: 'in_progress' } });
      output.forEach((item, output_index) => {
        world.say({ type: 'response.output_item.done', output_index, item: rewrite(item) });
      });
      world.say({
        type: 'response.completed',
        response: { id: `resp_${n}`, status: 'completed', output: [] },
      });
      world.read();
    });
    expect(world.notices()).toEqual([]);
  });
});

const text = (said: string, more: Item = {}): Item => ({
  type: 'message',
  id: 'msg_1',
  role: 'assistant',
  content: [{ type: 'output_text', text: said, annotations: [], logprobs: [] }],
  ...more,
});
const call = (id: string, args: string, more: Item = {}): Item => ({
  type: 'function_call',
  call_id: id,
  name: 'f',
  arguments: args,
  ...more,
});
const reasoning = (id: string | undefined, more: Item = {}): Item => ({
  type: 'reasoning',
  ...(id === undefined ? {} : { id }),
  summary: [{ type: 'summary_text', text: 'hm' }],
  encrypted_content: 'zip',
  ...more,
});
const picture = (id: string | undefined, more: Item = {}): Item => ({
  type: 'image_generation_call',
  ...(id === undefined ? {} : { id }),
  status: 'completed',
  ...more,
});
const approval = (id: string): Item => ({ type: 'mcp_approval_request', id, name: 'f', arguments: '{}' });

describe('histories that read the same', () => {
  it.each<[string, readonly Item[], readonly Item[]]>([
    ['plain text for one part', [text('hi')], [{ role: 'assistant', content: 'hi' }]],
    ['another id of a message', [text('hi')], [text('hi', { id: 'msg_other' })]],
    ['no id and no status', [text('hi', { status: 'completed' })], [text('hi', { id: undefined })]],
    ['no phase', [text('hi', { phase: 'commentary' })], [text('hi')]],
    [
      'no annotations',
      [
        text('hi', {
          content: [{ type: 'output_text', text: 'hi', annotations: [{ type: 'url_citation' }] }],
        }),
      ],
      [text('hi')],
    ],
    ['arguments with other blanks', [call('c', '{"a":1,"b":[2]}')], [call('c', '{ "a": 1, "b": [2] }')]],
    ['no arguments for none', [call('c', '')], [call('c', '{}')]],
    ['arguments with escapes', [call('c', '{"a":"é"}')], [call('c', '{"a":"\\u00e9"}')]],
    ['reasoning encrypted anew', [reasoning('rs_1')], [reasoning('rs_1', { encrypted_content: 'other' })]],
    ['reasoning without its id', [reasoning('rs_1')], [reasoning(undefined)]],
    ['reasoning left out', [reasoning('rs_1'), text('hi')], [text('hi')]],
    [
      'some of the reasoning left out',
      [reasoning('rs_1'), reasoning('rs_2'), text('hi')],
      [reasoning('rs_2'), text('hi')],
    ],
    ['reasoning left out at the end', [text('hi'), reasoning('rs_1')], [text('hi')]],
    [
      'calls before the commentary',
      [text('hi'), call('c', '{}'), call('d', '{}')],
      [call('c', '{}'), call('d', '{}'), text('hi')],
    ],
    ['an item named', [picture('ig_1', { result: 'AAAA' })], [{ type: 'item_reference', id: 'ig_1' }]],
    ['an item named without a type', [text('hi')], [{ id: 'msg_1' }]],
    [
      'reasoning named',
      [reasoning('rs_1'), text('hi')],
      [{ type: 'item_reference', id: 'rs_1' }, text('hi')],
    ],
    ['a picture without its bytes', [picture('ig_1', { result: 'AAAA' })], [picture('ig_1')]],
    [
      'a picture by its bytes',
      [picture('ig_1', { result: 'AAAA' })],
      [picture(undefined, { result: 'AAAA' })],
    ],
    ['null for absent', [text('hi')], [text('hi', { phase: null })]],
  ])('%s', (_, said, told) => {
    expect(isProved(said, told)).toBe(true);
  });
});

describe('histories that differ', () => {
  it.each<[string, readonly Item[], readonly Item[]]>([
    ['another text', [text('hi')], [text('ho')]],
    ['another role', [text('hi')], [{ role: 'user', content: 'hi' }]],
    ['another phase', [text('hi', { phase: 'commentary' })], [text('hi', { phase: 'final_answer' })]],
    [
      'annotations that nobody said',
      [text('hi')],
      [text('hi', { content: [{ type: 'output_text', text: 'hi', annotations: [{ a: 1 }] }] })],
    ],
    ['another item named', [{ type: 'item_reference', id: 'a' }], [{ type: 'item_reference', id: 'b' }]],
    ['another picture', [picture('ig_1')], [picture('ig_2')]],
    ['another picture by its bytes', [picture('ig_1', { result: 'A' })], [picture('ig_1', { result: 'B' })]],
    ['another approval', [approval('mcpr_1')], [approval('mcpr_2')]],
    [
      'another answer to an approval',
      [{ type: 'mcp_approval_response', approval_request_id: 'a', approve: true }],
      [{ type: 'mcp_approval_response', approval_request_id: 'b', approve: true }],
    ],
    ['other arguments', [call('c', '{"a":1}')], [call('c', '{"a":2}')]],
    ['a null that was absent', [call('c', '{}')], [call('c', '{"phase":null}')]],
    ['a member that looks optional', [call('c', '{"phase":"x"}')], [call('c', '{}')]],
    [
      'a number of 64 bits next to it',
      [call('c', '{"n":9007199254740993}')],
      [call('c', '{"n":9007199254740992}')],
    ],
    ['another call id', [call('c', '{}')], [call('d', '{}')]],
    ['calls in another order', [call('c', '{}'), call('d', '{}')], [call('d', '{}'), call('c', '{}')]],
    ['texts in another order', [text('one'), text('two')], [text('two'), text('one')]],
    ['a text left out', [text('one'), call('c', '{}')], [call('c', '{}')]],
    ['a call left out', [text('one'), call('c', '{}')], [text('one')]],
    ['a thing said twice', [text('one')], [text('one'), text('one')]],
    ['another thought', [reasoning('rs_1')], [reasoning('rs_2')]],
    [
      'other words of a thought',
      [reasoning('rs_1')],
      [reasoning('rs_1', { summary: [{ type: 'summary_text', text: 'ha' }] })],
    ],
    [
      'a sealed thought without a name',
      [reasoning('rs_1', { summary: [] })],
      [reasoning(undefined, { summary: [], encrypted_content: 'other' })],
    ],
    ['no arguments for some', [call('c', '')], [call('c', '{"a":1}')]],
    ['arguments that are no JSON', [call('c', '{"a')], [call('c', '{"b')]],
  ])('%s', (_, said, told) => {
    expect(isProved(said, told)).toBe(false);
  });

  it('by being too short say so', () => {
    expect(prove([text('one'), call('c', '{}')], [text('one')])).toEqual({
      ok: false,
      reason: 'history_shorter_than_known',
    });
    expect(prove([text('one')], [text('two')])).toEqual({ ok: false, reason: 'history_differs' });
  });
});

it('does not parse what is equal', () => {
  const items = ['{"this is', 'no JSON'];
  const proof = proveExtension(
    [{ input: items, output: items } as unknown as Step],
    [...items, ...items, 'new'],
  );
  expect(proof).toEqual({ ok: true, delta: ['new'] });
});

describe('an item of this session, named in input', () => {
  const answer = { id: 'msg_A', type: 'message', role: 'assistant', content: 'A' };
  const named = JSON.stringify({ type: 'item_reference', id: 'msg_A' });

  function answered(store: boolean) {
    const world = ready();
    world.start({ text: 'one', store });
    world.say({ type: 'response.created', response: { id: 'resp_1', status: 'in_progress' } });
    world.say({ type: 'response.output_item.done', output_index: 0, item: answer });
    world.say({ type: 'response.completed', response: { id: 'resp_1', status: 'completed', output: [] } });
    world.read();
    return world;
  }

  it('is said where the upstream did not store it', () => {
    const world = answered(false);
    world.start({ input: [named], chain: { kind: 'newConversation' } });
    expect(inputOf(sent(world).at(-1))).toEqual(['A']);
  });

  it('stays a name where it did, and where it is not of this session', () => {
    const world = answered(true);
    world.start({ input: [named], chain: { kind: 'newConversation' } });
    world.start({ lane: 'b', input: [JSON.stringify({ type: 'item_reference', id: 'msg_B' })] });
    expect(inputOf(sent(world).at(-1))).toEqual(['item_reference']);
    expect(inputOf(sent(world).at(-2))).toEqual(['item_reference']);
  });
});
