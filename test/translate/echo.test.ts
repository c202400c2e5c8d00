import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { UpstreamFrame } from '../../src/core/types.ts';
import { createWire, frameFromBytes } from '../../src/translate/index.ts';
import { eventOf, TYPED } from './support.ts';

const wire = createWire();
const tool = (name: string, text: string) => ({
  type: 'function',
  name,
  description: text,
  parameters: { type: 'object', properties: { instructions: { type: 'string' }, tools: { type: 'array' } } },
  strict: true,
});
const TEXTS = ['Be "brief".\n', 'ümläut ☃ "instructions": x ', '\\"tools\\":[] '].map((text) =>
  text.repeat(60),
);
const text = fc.constantFrom(...TEXTS);
const instructions = fc.oneof(
  text,
  fc.constant(null),
  text.map((each) => [
    {
      type: 'message',
      role: 'system',
      content: [{ type: 'input_text', text: each }],
      tools: [tool('x', each)],
    },
  ]),
);
const tools = fc.array(
  text.map((each) => tool('look', each)),
  { maxLength: 2 },
);
const frame = fc
  .record({
    type: fc.constantFrom('created', 'in_progress', 'completed'),
    id: fc.constantFrom('resp_1', 'resp_2'),
    instructions,
    tools,
    outputTools: fc.option(tools, { nil: undefined }),
    space: fc.constantFrom(0, 1),
    extra: fc.boolean(),
  })
  .map(({ type, id, outputTools, space, extra, ...echoed }) => {
    const listed = { type: 'mcp_list_tools', id: 'mcp_1', server_label: 's', tools: outputTools };
    const response = {
      id,
      object: 'response',
      status: 'completed',
      output: outputTools === undefined ? [] : [listed],
      ...echoed,
      ...(extra && { unheard_of: echoed.tools }),
    };
    return JSON.stringify({ type: `response.${type}`, sequence_number: 3, response }, undefined, space);
  });

interface Members {
  readonly response: Readonly<Record<string, unknown>>;
}

/** As it is read where nothing is known. */
function plain(bytes: Buffer): UpstreamFrame {
  const json = () => JSON.parse(bytes.toString('utf8')) as Readonly<Record<string, unknown>>;
  const { type } = json() as { readonly type: string };
  return { type, streamId: undefined, byteLength: bytes.length, bytes, json };
}

it('frames that repeat what others said are read as if nobody had said it before', () => {
  fc.assert(
    fc.property(frame, (json) => {
      const bytes = Buffer.from(json);
      const read = frameFromBytes(bytes);
      expect(wire.event(eventOf(read), TYPED)).toEqual(wire.event(eventOf(plain(bytes)), TYPED));
      const whole = read.json() as unknown as Members;
      const brief = read.brief?.() as unknown as Members;
      expect({ ...brief, response: whole.response }).toEqual(whole);
      for (const [name, value] of Object.entries(brief.response)) {
        if (value !== null || !['instructions', 'tools'].includes(name))
          expect(value).toEqual(whole.response[name]);
      }
    }),
    { numRuns: 400 },
  );
});

it('a frame is refused where JSON.parse refuses it, whatever of it is known', () => {
  fc.assert(
    fc.property(
      frame,
      fc.nat(),
      fc.constantFrom('"', '\\', '{', ']', ',', 'x', '\u0001'),
      (json, place, letter) => {
        frameFromBytes(Buffer.from(json));
        const at = place % json.length;
        const broken = json.slice(0, at) + letter + json.slice(at + 1);
        const isFrame = () => {
          const value: unknown = JSON.parse(broken);
          return typeof (value as { readonly type?: unknown }).type === 'string';
        };
        let expected = false;
        try {
          expected = isFrame();
        } catch {}
        let found = true;
        try {
          frameFromBytes(Buffer.from(broken));
        } catch {
          found = false;
        }
        expect(found).toBe(expected);
      },
    ),
    { numRuns: 2_000 },
  );
});
