import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';
import type { UpstreamFrame } from '../../src/core/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { frameFromBytes } from '../../src/translate/peek.ts';
import { World } from '../core/world.ts';
import { brokenCopies, corpus, FUZZ_TIMEOUT_MS, fuzz, JSON_WORDS } from './support.ts';

const seeds = corpus('frames');

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('frame' as const),
      link: fc.nat(3),
      bytes: brokenCopies(seeds, JSON_WORDS),
    }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('event' as const), link: fc.nat(3), event: event() }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('turn' as const),
      lane: fc.constantFrom('', 'a', 'b', '__proto__'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('real' as const), pick: fc.nat(5) }) },
  fc.record({ do: fc.constant('steer' as const), lane: fc.constantFrom('', 'a') }),
  fc.record({ do: fc.constant('cancel' as const), turn: fc.nat(5) }),
  fc.record({ do: fc.constant('wait' as const), ms: fc.nat(90_000) }),
  fc.record({ do: fc.constant('cut' as const) }),
);

/** Frames that are well-formed and wrong: known types with any fields, ids that may or may not exist. */
function event(): fc.Arbitrary<Readonly<Record<string, unknown>>> {
  const id = fc.constantFrom('resp_1', 'resp_2', 'resp_none', 'steer_1', '', '__proto__', 7, null);
  const type = fc.constantFrom(
    ...[
      'response.created',
      'response.in_progress',
      'response.completed',
      'response.failed',
      'response.incomplete',
    ],
    ...[
      'response.output_item.added',
      'response.output_item.done',
      'response.output_text.delta',
      'response.queued',
    ],
    ...[
      'response.steer.accepted',
      'response.steer.pending',
      'response.steer.failed',
      'error',
      'response.new_thing',
      '',
    ],
  );
  const response = fc.record(
    {
      id,
      status: fc.constantFrom('completed', 'failed', 7),
      output: fc.anything(),
      usage: fc.anything(),
      error: fc.anything(),
      previous_response_id: id,
    },
    { requiredKeys: [] },
  );
  return fc.record(
    {
      type,
      stream_id: fc.constantFrom('', 'a', 'b', 'nowhere', 7, null),
      sequence_number: fc.oneof(fc.integer(), fc.constant('1')),
      response: fc.oneof(response, fc.anything()),
      response_id: id,
      item: fc.anything(),
      steer: fc.oneof(fc.record({ id, input: fc.anything() }), fc.anything()),
      error: fc.oneof(
        fc.record({ code: fc.anything(), message: fc.anything(), headers: fc.anything() }),
        fc.anything(),
      ),
      code: fc.constantFrom(
        'previous_response_not_found',
        'websocket_connection_limit_reached',
        'rate_limit_exceeded',
        7,
      ),
      status: fc.anything(),
      headers: fc.anything(),
    },
    { requiredKeys: ['type'] },
  );
}

describe('the frame router', { timeout: FUZZ_TIMEOUT_MS }, () => {
  test.prop([fc.array(step, { maxLength: 40 })], fuzz())(
    'whatever the upstream says: no crash, one end for every turn, no gap in seq',
    (steps) => {
      const world = new World({ maxTranscriptBytes: 200_000 });
      const turns: string[] = [];
      for (const one of steps) {
        if (world.ended) break;
        switch (one.do) {
          case 'frame':
          case 'event': {
            const bytes = one.do === 'frame' ? one.bytes : Buffer.from(JSON.stringify(one.event));
            const frame = read(bytes);
            if (frame !== undefined) world.feed({ kind: 'frame', linkId: linkOf(world, one.link), frame });
            break;
          }
          case 'turn':
            turns.push(world.start({ lane: one.lane }));
            if (world.dials.length > 0) world.answerDial();
            break;
          case 'real': {
            const busy = world.upstream.openLinks.find((id) => world.upstream.pending(id));
            if (busy !== undefined) world.deliver(busy, one.pick);
            break;
          }
          case 'steer':
            world.steer(one.lane, 'more');
            break;
          case 'cancel':
            world.cancel('', turns[one.turn] ?? 'none');
            break;
          case 'wait':
            world.advance(one.ms);
            break;
          case 'cut':
            world.cut(world.upstream.openLinks[0] ?? 1);
            break;
        }
        world.read();
      }
      world.feed({ kind: 'terminate', error: new GatewayError('DRAINING', 'over') });
      world.read(100_000);

      const bugs = world.received.filter(({ turnFailed }) => turnFailed?.error.reason === 'INTERNAL');
      expect(bugs.map(({ turnFailed }) => turnFailed?.error.cause)).toEqual([]);
      expect(world.received.map(({ seq }) => seq)).toEqual(world.received.map((_, at) => at + 1));
      const ends = new Map<string, number>();
      for (const { turnId, outcome } of world.received) {
        if (outcome !== undefined) ends.set(turnId, (ends.get(turnId) ?? 0) + 1);
      }
      for (const [turnId, count] of ends) expect([turnId, count]).toEqual([turnId, 1]);
      expect(Reflect.get(Object.prototype, 'polluted')).toBeUndefined();
    },
  );
});

function read(bytes: Buffer): UpstreamFrame | undefined {
  try {
    return frameFromBytes(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(GatewayError);
    return undefined;
  }
}

function linkOf(world: World, pick: number): number {
  const links = world.upstream.openLinks;
  return links[pick % Math.max(1, links.length)] ?? pick;
}
