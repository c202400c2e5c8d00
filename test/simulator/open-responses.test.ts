import { describe, expect, it } from 'vitest';
import type { SimulatorOptions } from '../../src/simulator/index.ts';
import { openResponsesEvent, openResponsesProblem } from './schema.ts';
import { type Frame, functionTool, RawClient, simulator } from './support.ts';

/** OpenAI has these, the specification does not (its extensions carry a prefix). */
const BEYOND =
  /^response\.(steer|inject|compaction|image_generation_call|custom_tool_call_input|reasoning_text)\b/;
const ITEMS_BEYOND: ReadonlySet<unknown> = new Set(['image_generation_call', 'custom_tool_call']);

/** `#tools=0`: answers at once, although tools are given. */
const INPUTS = [
  '#tools=0 hello',
  '#tools=0 #reasoning',
  '#tools=0 #refuse',
  '#tools=0 #fail',
  '#tools=0 #incomplete',
  '#tools=0 #filtered',
  '#tools=0 #messages=3',
  '#tools=0 #image=300',
  '#tools=0 #sparse',
  '#tools=2 #parallel=2',
  '#tools=0 #error=429',
];
const CREATE = {
  model: 'gpt-5.5',
  tools: [functionTool('f'), { type: 'function', name: 'bare' }],
  include: ['reasoning.encrypted_content'],
  reasoning: { effort: 'low' },
  metadata: { a: 'b' },
};

/** What is wrong with events; those that the specification has no word for are left out. */
function problems(frames: readonly Frame[]): readonly string[] {
  return frames.flatMap((frame) => {
    if (BEYOND.test(frame.type) || isAboutItemBeyond(frame)) return [];
    const model =
      frame.type === 'error' && typeof frame.status === 'number'
        ? 'WebSocketErrorEvent'
        : openResponsesEvent(frame.type);
    if (model === undefined) return [`the specification has no ${frame.type}`];
    return openResponsesProblem(frame, model) ?? [];
  });
}

function isAboutItemBeyond({ item, response }: Frame): boolean {
  const items = [item, ...((response as { output?: unknown[] } | undefined)?.output ?? [])];
  return items.some((each) => ITEMS_BEYOND.has((each as { type?: unknown } | undefined)?.type));
}

/** The events of a stream over HTTP. */
async function eventsOf(answer: Response): Promise<readonly Frame[]> {
  const text = await answer.text();
  return text
    .split('\n\n')
    .filter((block) => block !== '')
    .map((block) => JSON.parse(block.slice(block.indexOf('data: ') + 6)) as Frame);
}

const post = async (options: SimulatorOptions, body: object): Promise<Response> => {
  const running = await simulator(options);
  return fetch(`${running.httpUrl}/responses`, {
    method: 'POST',
    body: JSON.stringify({ ...CREATE, ...body }),
  });
};

describe('Open Responses', () => {
  it.each(INPUTS)('has every event of %s over WebSocket', async (input) => {
    const client = await RawClient.open(await simulator());
    client.create({ ...CREATE, stream_id: 'a', input });
    await client.terminal('a');
    expect(client.frames.length).toBeGreaterThan(0);
    expect(problems(client.frames)).toEqual([]);
  });

  it.each(INPUTS)('has every event of %s over HTTP', async (input) => {
    const answer = await post({}, { input, stream: true });
    if (input.includes('#error')) {
      const { error } = (await answer.json()) as { error: unknown };
      expect(openResponsesProblem(error, 'ErrorPayload')).toBeNull();
      return;
    }
    const events = await eventsOf(answer);
    expect(events.length).toBeGreaterThan(2);
    expect(problems(events)).toEqual([]);
  });

  it('has an error in the middle of a stream', async () => {
    const fault = { kind: 'error', atEvent: 4, status: 500, code: 'server_error' } as const;
    const events = await eventsOf(await post({ faults: [fault] }, { input: 'hello', stream: true }));
    expect(events.at(-1)?.type).toBe('error');
    expect(problems(events)).toEqual([]);
  });

  it.each(INPUTS.filter((input) => !/image|error/.test(input)))(
    'has the whole answer to %s',
    async (input) => {
      const body = await (await post({}, { input })).json();
      expect(openResponsesProblem(body, 'ResponseResource')).toBeNull();
    },
  );

  it('has a background response at its start, in its stream, read again and cancelled', async () => {
    const running = await simulator({ timing: { tokensPerSecond: 50 } });
    const call = async (method: string, path: string, body?: object): Promise<Response> =>
      fetch(`${running.httpUrl}/responses${path}`, { method, ...(body && { body: JSON.stringify(body) }) });
    const created = (await (
      await call('POST', '', { ...CREATE, tools: [], input: '#deltas=500', background: true })
    ).json()) as { id: string };
    const read = await (await call('GET', `/${created.id}`)).json();
    const cancelled = await (await call('POST', `/${created.id}/cancel`)).json();
    for (const each of [created, read, cancelled])
      expect(openResponsesProblem(each, 'ResponseResource')).toBeNull();
    const events = await eventsOf(await call('GET', `/${created.id}?stream=true`));
    expect(events[1]?.type).toBe('response.queued');
    expect(problems(events.filter(({ type }) => type !== 'response.cancelled'))).toEqual([]);
  });

  it('has a compacted window', async () => {
    const running = await simulator();
    const answer = await fetch(`${running.httpUrl}/responses/compact`, {
      method: 'POST',
      body: JSON.stringify({ model: 'gpt-5.5', input: [{ role: 'user', content: 'x' }] }),
    });
    expect(openResponsesProblem(await answer.json(), 'CompactResource')).toBeNull();
  });

  it('would not have an answer that lacks a field', async () => {
    const body = (await (await post({}, { input: 'x' })).json()) as Record<string, unknown>;
    delete body['presence_penalty'];
    expect(openResponsesProblem(body, 'ResponseResource')).toBe('ResponseResource: no presence_penalty');
  });
});
