import { describe, expect, it } from 'vitest';
import { milderForm, type ReplayForm, ReplayForms, replayable } from '../../src/core/replay.ts';
import type { Step, TranscriptNode } from '../../src/core/transcript.ts';
import { type HistoryRefusal, historyRefusal } from '../../src/dialect/history-refusal.ts';
import { ROUTE } from './world.ts';

const OPENAI = { ...ROUTE, account: 'key-1' };
const COMPATIBLE = { ...ROUTE, upstream: 'local', provider: 'compatible' };

const step = (
  input: readonly string[],
  output: readonly string[],
  made: Partial<TranscriptNode> = {},
): Step => ({
  node: {
    id: 'resp_1',
    laneId: '',
    parentId: undefined,
    stored: false,
    upstream: 'main',
    account: 'key-1',
    contextBytes: 0,
    items: undefined,
    ...made,
  },
  input,
  output,
});
const forms = new ReplayForms();
const replay = (
  steps: readonly Step[],
  route: typeof COMPATIBLE | typeof OPENAI = OPENAI,
  { answers = [], form = forms.of(route) }: { answers?: readonly string[]; form?: ReplayForm } = {},
) => replayable(steps, answers, route, form);

const USER = '{"role":"user","content":"hi","id":"msg_own","n":12345678901234567890}';
const MESSAGE =
  '{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"output_text","text":"yo"}]}';
const SEALED = '{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"zip"}';
const PLAIN =
  '{"id":"rs_2","type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]}';
const BOTH =
  '{"id":"rs_3","type":"reasoning","content":[{"type":"reasoning_text","text":"hm"}],"encrypted_content":"zip"}';
const CALL =
  '{"id":"fc_1","type":"function_call","call_id":"c1","name":"f","arguments":"{}","status":"completed"}';
const HALF =
  '{"id":"fc_2","type":"function_call","call_id":"c2","name":"f","arguments":"{\\"a","status":"incomplete"}';
const UNSAID_HALF = '{"id":"fc_2","type":"function_call","call_id":"c2","name":"f","arguments":"{\\"a"}';
const OUTPUT = (call: string) => `{"type":"function_call_output","call_id":"${call}","output":"x"}`;
const without = (text: string, member: string) => text.replace(member, '');

describe('a replay', () => {
  it.each<[string, string, typeof OPENAI | typeof COMPATIBLE, readonly string[]]>([
    ['loses ids that OpenAI does not know', MESSAGE, OPENAI, [without(MESSAGE, '"id":"msg_1",')]],
    ['keeps ids where no store is', MESSAGE, COMPATIBLE, [MESSAGE]],
    [
      'keeps the id that is the content',
      '{"id":"ig_1","type":"image_generation_call"}',
      OPENAI,
      ['{"id":"ig_1","type":"image_generation_call"}'],
    ],
    [
      'has no empty ids',
      '{"id":"","type":"message","role":"assistant","content":"x"}',
      COMPATIBLE,
      ['{"type":"message","role":"assistant","content":"x"}'],
    ],
    ['has reasoning as its own upstream encrypted it', SEALED, OPENAI, [without(SEALED, '"id":"rs_1",')]],
    ['has no reasoning of another upstream', SEALED, COMPATIBLE, []],
    ['has no plain reasoning for OpenAI', PLAIN, OPENAI, []],
    ['has plain reasoning where models want it', PLAIN, COMPATIBLE, [PLAIN]],
    [
      'has the plain part of what another upstream encrypted',
      BOTH,
      COMPATIBLE,
      [without(BOTH, ',"encrypted_content":"zip"')],
    ],
    [
      'has the numbers that came',
      '{"type":"mcp_list_tools","id":"m","max":9223372036854775807,"f":1.0}',
      OPENAI,
      ['{"type":"mcp_list_tools","max":9223372036854775807,"f":1.0}'],
    ],
    ['has no summary of another upstream', '{"type":"compaction","encrypted_content":"z"}', COMPATIBLE, []],
  ])('%s', (_, item, route, sent) => {
    expect(replay([step([], [item])], route)).toEqual(sent);
  });

  it('has the bytes that the client sent, at its own upstream', () => {
    expect(replay([step([USER, SEALED], [])])).toEqual([USER, SEALED]);
    expect(replay([step([USER, SEALED], [])], COMPATIBLE)).toEqual([USER]);
  });

  it('has nothing that another account encrypted, of what is known', () => {
    const route = { ...OPENAI, account: 'key-2' };
    expect(replay([step([], [SEALED])], route)).toEqual([]);
    expect(replay([step([], [SEALED], { account: undefined })], route)).toHaveLength(1);
    expect(replay([step([], [SEALED])], { ...OPENAI, account: undefined })).toHaveLength(1);
  });

  it.each([HALF, UNSAID_HALF])('has no half call that nobody has answered: %s', (half) => {
    const sent = replay([step([], [half])]);
    expect(sent).toEqual([]);
    expect(replay([step([], [half]), step([OUTPUT('c2')], [])])).toHaveLength(2);
    expect(replay([step([], [half])], OPENAI, { answers: [OUTPUT('c2')] })).toHaveLength(1);
  });

  it('has whole calls as they were said, until the upstream wants pairs', () => {
    const steps = [step([], [CALL]), step([OUTPUT('c9'), USER], [])];
    expect(replay(steps)).toHaveLength(3);
    const pairs = milderForm(forms.of(OPENAI), 'call_unanswered');
    expect(replay(steps, OPENAI, { form: pairs })).toEqual([USER.replace(',"id":"msg_own"', '')]);
    expect(replay(steps, OPENAI, { form: pairs, answers: [OUTPUT('c1')] })).toHaveLength(2);
  });

  it('gives ids to items that have none where they are required', () => {
    const form = milderForm(forms.of(COMPATIBLE), 'id_missing');
    const bare = without(MESSAGE, '"id":"msg_1",');
    const once = replay([step([USER], [bare, MESSAGE])], COMPATIBLE, { form });
    expect(once.map((text) => JSON.parse(text).id)).toEqual([
      'msg_own',
      expect.stringMatching(/^msg_[0-9a-f]{8}$/),
      'msg_1',
    ]);
    expect(replay([step([USER], [bare, MESSAGE])], COMPATIBLE, { form })).toEqual(once);
  });

  it('learns what an upstream takes', () => {
    const learning = new ReplayForms();
    const form = milderForm(learning.of(OPENAI), 'encrypted_content');
    learning.learn(OPENAI, form);
    expect(learning.of(OPENAI).encryptedReasoning).toBe(false);
    expect(learning.of(COMPATIBLE)).toEqual(forms.of(COMPATIBLE));
  });
});

describe('a refusal of the history', () => {
  it.each<[string, object, HistoryRefusal | undefined]>([
    ['by code', { status: 400, code: 'invalid_encrypted_content' }, 'encrypted_content'],
    ['by words', { status: 400, message: 'Encrypted content is not supported.' }, 'encrypted_content'],
    ['by words', { message: 'The encrypted content could not be verified.' }, 'encrypted_content'],
    ['by param', { status: 400, code: 'missing_required_parameter', param: 'input[1].id' }, 'id_missing'],
    ['by words', { status: 400, message: "Missing required parameter: 'input[12].id'." }, 'id_missing'],
    [
      'by words',
      { status: 400, message: 'input.list[Item].1.ResponseOutputMessage.id Field required' },
      'id_missing',
    ],
    [
      'by words',
      {
        status: 404,
        message: "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.",
      },
      'id_unknown',
    ],
    [
      'by param',
      {
        status: 400,
        param: 'input[1].id',
        message: "Invalid 'input[1].id': ''. Expected an ID that begins with 'msg'.",
      },
      'id_unknown',
    ],
    [
      'by words',
      {
        status: 400,
        message: "Item 'msg_1' of type 'message' was provided without its required 'reasoning' item: 'rs_1'.",
      },
      'id_unknown',
    ],
    [
      'by words',
      { status: 400, message: 'No tool output found for function call call_1.' },
      'call_unanswered',
    ],
    [
      'by words',
      { status: 400, message: "An assistant message with 'tool_calls' must be followed by tool messages" },
      'call_unanswered',
    ],
    [
      'by words',
      { status: 400, message: 'No tool call found for function call output with call_id call_1.' },
      'output_unasked',
    ],
    [
      'by words',
      { status: 400, message: 'The reasoning_content in the thinking mode must be passed back' },
      'reasoning_missing',
    ],
    ['of something else', { status: 400, message: "Missing required parameter: 'model'." }, undefined],
    ['of something else', { status: 429, message: 'encrypted content quota' }, undefined],
    ['that may have run', { status: 500, code: 'invalid_encrypted_content' }, undefined],
  ])('is known %s: %j', (_, facts, refusal) => {
    expect(historyRefusal({ facts })).toBe(refusal);
  });
});
