import { expect, it } from 'vitest';
import { frameFromBytes } from '../../src/translate/index.ts';

const LONG = 'Be "brief".\n'.repeat(300);
const TOOLS = [{ type: 'function', name: 'tools', parameters: { instructions: '}]"' }, description: LONG }];

function briefOf(document: object | string): unknown {
  const text = typeof document === 'string' ? document : JSON.stringify(document);
  return frameFromBytes(Buffer.from(text)).brief?.();
}

it('a brief frame lacks the long instructions and tools of its response, and nothing else', () => {
  const rest = { id: 'resp_1', output: [{ tools: TOOLS, instructions: LONG }], usage: { input_tokens: 12 } };
  const frame = { type: 'response.completed', instructions: LONG, response: { ...rest, tools: TOOLS } };
  expect(briefOf(frame)).toEqual({ ...frame, response: { ...rest, tools: [] } });
  expect(briefOf({ ...frame, response: { instructions: LONG, ...rest, tools: TOOLS } })).toEqual({
    ...frame,
    response: { instructions: null, ...rest, tools: [] },
  });
  const spaced = JSON.stringify(
    { ...frame, response: { tools: TOOLS, ...rest, instructions: LONG } },
    null,
    2,
  );
  expect(briefOf(spaced)).toEqual({ ...frame, response: { tools: [], ...rest, instructions: null } });
});

it.each([
  ['short ones', { type: 'x', response: { instructions: 'a', tools: [], output: LONG } }],
  ['a response that is none', { type: 'x', response: LONG, tools: TOOLS }],
  ['no response', { type: 'x', item: { tools: TOOLS } }],
])('a frame with %s is itself', (_, frame) => {
  expect(briefOf(frame)).toEqual(frame);
});
