/** Plays the gateway before another server of the Responses API: lanes, a refusal, a stream that is cut, and on. */
import assert from 'node:assert/strict';
import type { UpstreamOptions } from '../../src/upstream/upstream.ts';
import { type TestEvent, textOf } from '../harness/client.ts';
import { startGateway } from '../harness/gateway.ts';

export interface UpstreamJudge {
  readonly url: string;
  readonly upstream?: Partial<UpstreamOptions>;
  readonly model: string;
  /** What each lane is asked, and answers. */
  readonly lanes: Readonly<Record<string, { readonly ask: string; readonly answer: RegExp }>>;
  /** What the server refuses. */
  readonly refused: string;
  /** An answer that takes so long that its server is gone before its end; undefined: that is not tried. */
  readonly long?: string;
  /** Ends the server, at once. */
  stop(): Promise<void>;
}

export async function judgeUpstream(judge: UpstreamJudge): Promise<void> {
  const gateway = await startGateway({
    upstreamUrl: judge.url,
    upstream: { provider: 'compatible', ...judge.upstream },
  }).catch(async (error: unknown) => {
    await judge.stop();
    throw error;
  });
  try {
    const stream = gateway.client().connect({ model: judge.model });
    const ask = (turnId: string, laneId: string, text: string): Promise<readonly TestEvent[]> => {
      stream.startTurn({ turn_id: turnId, lane_id: laneId, create: { model: judge.model } } as never, text);
      return stream.turn(turnId);
    };
    const ended = (events: readonly TestEvent[]): string => events.at(-1)?.outcome ?? 'nothing';
    for (const round of [1, 2]) {
      const names = Object.keys(judge.lanes);
      const turns = await Promise.all(
        names.map((lane) => ask(`${lane}${round}`, lane, judge.lanes[lane]?.ask ?? '')),
      );
      for (const [n, events] of turns.entries()) {
        assert.equal(ended(events), 'TURN_OUTCOME_COMPLETED', JSON.stringify(events.at(-1)?.turn_failed));
        assert.match(textOf(events), judge.lanes[names[n] ?? '']?.answer ?? /^$/);
      }
    }
    const refused = await ask('refused', 'other', judge.refused);
    assert.equal(ended(refused), 'TURN_OUTCOME_FAILED');
    const [first = ''] = Object.keys(judge.lanes);
    const after = await ask('after', 'other', judge.lanes[first]?.ask ?? '');
    assert.equal(ended(after), 'TURN_OUTCOME_COMPLETED', 'a lane goes on after a refusal');
    if (judge.long !== undefined) {
      stream.startTurn(
        { turn_id: 'long', lane_id: 'long', create: { model: judge.model } } as never,
        judge.long,
      );
      await stream.event('response.output_text.delta', 'long');
      await judge.stop();
      const cut = await stream.turn('long');
      assert.equal(ended(cut), 'TURN_OUTCOME_FAILED');
      assert.match(cut.at(-1)?.turn_failed?.reason ?? '', /^UPSTREAM_/);
    }
    assert.deepEqual(gateway.bugs, []);
  } finally {
    await gateway.close();
    await judge.stop();
  }
}
