import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import type { SessionEvent, UpstreamFrame } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { loadApi } from '../../src/translate/api.ts';
import type { EventFormat } from '../../src/translate/messages.ts';
import { frameFromBytes } from '../../src/translate/peek.ts';
import { createWire } from '../../src/translate/wire.ts';
import { cpuMsOf } from '../harness/cpu.ts';
import { brokenCopies, corpus, FUZZ_TIMEOUT_MS, fuzz, JSON_WORDS, MAX_INPUT_MS } from './support.ts';

const api = loadApi();
const wire = createWire(api);
const frames = corpus('frames');

describe('what the upstream says', { timeout: FUZZ_TIMEOUT_MS }, () => {
  const format: fc.Arbitrary<EventFormat> = fc.record({
    payload: fc.constantFrom('typed', 'json', 'both'),
    schemaRevision: fc.constantFrom(0, 1, 1_000_000),
  });

  test.prop([brokenCopies(frames, JSON_WORDS), format], {
    ...fuzz({
      examples: frames.map(({ bytes }): [Buffer, EventFormat] => [
        bytes,
        { payload: 'both', schemaRevision: 0 },
      ]),
    }),
  })('becomes an event that any protobuf reader can read, and loses nothing', (bytes, wanted) => {
    const frame = read(bytes);
    if (frame === undefined) return;
    let encoded: Uint8Array = Buffer.alloc(0);
    const tookMs = cpuMsOf(() => {
      encoded = wire.event(eventOf(frame), wanted);
    });
    expect(tookMs).toBeLessThan(MAX_INPUT_MS);
    const decoded = api.type('Event').toObject(api.type('Event').decode(encoded), { oneofs: true });
    expect(decoded['type']).toBe(frame.type);
    const exact = decoded['json'];
    const typed = decoded['payload'];
    if (exact !== undefined) expect(Buffer.from(exact).equals(bytes)).toBe(true);
    else expect(typed).toBeDefined();
    if (wanted.payload !== 'typed') expect(exact).toBeDefined();
    expect(Reflect.get(Object.prototype, 'polluted')).toBeUndefined();
  });
});

describe('what clients send', { timeout: FUZZ_TIMEOUT_MS }, () => {
  const types = ['ConnectRequest', 'CreateResponseRequest', 'CompactResponseRequest'] as const;
  const seeds = requests();

  test.prop(
    [
      fc.constantFrom(...types),
      brokenCopies(seeds, [...JSON_WORDS, '\u0008', '\u000a\u0002', '\u001a\u00ff']),
    ],
    fuzz({ examples: WRONG_WIRE_TYPE }),
  )('is read, or refused with a reason', (type, bytes) => {
    const tookMs = cpuMsOf(() => {
      try {
        if (type === 'ConnectRequest') wire.readConnect(bytes);
        else if (type === 'CreateResponseRequest') wire.readCreateResponse(bytes, 't');
        else wire.readCall('CompactResponse', bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(GatewayError);
        if (error instanceof GatewayError) expect(error.fault).toBe('client');
      }
    });
    expect(tookMs).toBeLessThan(MAX_INPUT_MS);
    expect(Reflect.get(Object.prototype, 'polluted')).toBeUndefined();
  });

  test.prop([fc.jsonValue(), fc.jsonValue()], fuzz())(
    'raw JSON goes up byte for byte, and never sets what the gateway sets',
    (item, value) => {
      const json = ` ${JSON.stringify(item)} `;
      const extra = JSON.stringify({ 'x-extra': value });
      const create = { model: 'm', input: [{ json: Buffer.from(json) }], extra_json: Buffer.from(extra) };
      const bytes = api
        .type('ConnectRequest')
        .encode({ start_turn: { turn_id: 't', create } })
        .finish();
      const message = wire.readConnect(bytes);
      if (message.kind !== 'startTurn') {
        expect(message.kind).toBe('refused');
        return;
      }
      expect(message.turn.create.input.map((text) => JSON.parse(text))).toEqual([JSON.parse(json)]);
      expect(JSON.parse(message.turn.create.fields.get('x-extra') ?? 'null')).toEqual(
        JSON.parse(extra)['x-extra'],
      );
      for (const owned of ['type', 'stream', 'stream_id', 'previous_response_id']) {
        const wrong = { ...create, extra_json: Buffer.from(JSON.stringify({ [owned]: value })) };
        const refused = wire.readConnect(
          api
            .type('ConnectRequest')
            .encode({ start_turn: { turn_id: 't', create: wrong } })
            .finish(),
        );
        expect(refused.kind).toBe('refused');
      }
    },
  );
});

/** A message field with the wire type of a number: decoding and walking come to different ends. */
const WRONG_WIRE_TYPE: ['CompactResponseRequest', Buffer][] = [
  [
    'CompactResponseRequest',
    Buffer.from(
      '\u0011\\u0074ype":"x",\n\u0018\u001a\u0007\n\u0003abc\u0010\u0007*\u0006\n\u0001a\u0012\u0001b2\u0005gpt-6',
      'latin1',
    ),
  ],
];

function requests() {
  const messages = [
    { open: { model: 'gpt-6', resume: { token: 'abc', last_seq: 7 }, metadata: { a: 'b' } } },
    {
      start_turn: {
        turn_id: 't',
        lane_id: 'a',
        create: {
          model: 'gpt-6',
          input: [{ json: Buffer.from('{"type":"message"}') }],
          extra_json: Buffer.from('{"a":[1]}'),
        },
      },
    },
    {
      start_turn: {
        turn_id: 't',
        new_conversation: {},
        create: { input: [{ message: { role: 'user', content: [{ input_text: { text: 'hi' } }] } }] },
      },
    },
    {
      steer_turn: {
        turn_id: 't',
        input: [{ message: { role: 'user', content: [{ input_text: { text: 'hi' } }] } }],
      },
    },
    { cancel_turn: { turn_id: 't' } },
    { ack: { seq: 9 } },
  ];
  return messages.map((message, at) => ({
    name: `request-${at}`,
    bytes: Buffer.from(api.type('ConnectRequest').encode(message).finish()),
  }));
}

function eventOf(frame: UpstreamFrame): SessionEvent {
  return {
    seq: 1,
    laneId: '',
    turnId: 't',
    type: frame.type,
    outcome: undefined,
    frame,
    turnFailed: undefined,
    notice: undefined,
    commit: undefined,
    byteLength: frame.bytes.length,
  };
}

function read(bytes: Buffer): UpstreamFrame | undefined {
  try {
    return frameFromBytes(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(GatewayError);
    return undefined;
  }
}
