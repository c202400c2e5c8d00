import { fc, test } from '@fast-check/vitest';
import { expect } from 'vitest';
import type { SessionLease, TurnLease } from '../../src/access/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { ANY, BLUE, freePlaces, open, RED, record, turn, usage, usedOf } from './support.ts';

const LIMITS = { sessions: 4, lanes: 6, turnsInFlight: 5, tokensPerMinute: 50_000, turnsPerMinute: 10_000 };
const PROCESS_SESSIONS = 6;

const index = fc.nat(7);
const step = fc.oneof(
  fc.record({ do: fc.constant('open'), tenant: fc.constantFrom(BLUE, RED) }),
  fc.record({
    do: fc.constant('admit'),
    at: index,
    bytes: fc.nat(4_000),
    max: fc.option(fc.nat(4_000), { nil: undefined }),
  }),
  fc.record({ do: fc.constant('lane'), at: index }),
  fc.record({ do: fc.constant('laneClosed'), at: index }),
  fc.record({ do: fc.constant('settle'), at: index, tokens: fc.option(fc.nat(9_000), { nil: undefined }) }),
  fc.record({ do: fc.constant('abandon'), at: index }),
  fc.record({ do: fc.constant('late'), at: index, tokens: fc.nat(500) }),
  fc.record({ do: fc.constant('release'), at: index }),
);
type Step = ReturnType<typeof step.generate>['value'];

test.prop([fc.array(step, { maxLength: 80 })], { numRuns: 300 })(
  'after any use, in any order and twice over, every place is free again',
  async (steps) => {
    const { access } = open({ processLimits: { ...LIMITS, sessions: PROCESS_SESSIONS } }, [
      { id: 'blue', limits: LIMITS },
      { id: 'red', limits: LIMITS },
    ]);
    const sessions: SessionLease[] = [];
    const running = new Set<SessionLease>();
    const turns: TurnLease[] = [];
    for (const one of steps) {
      take(one);
      const free = PROCESS_SESSIONS - running.size;
      expect(freePlaces(access, BLUE, RED).sessions).toBe(free);
    }
    for (const session of sessions) session.release();
    const { sessions: most, lanes, turnsInFlight } = LIMITS;
    for (const principal of [BLUE, RED])
      expect(freePlaces(access, principal)).toEqual({ sessions: most, lanes, turnsInFlight });
    expect(freePlaces(access, BLUE, RED)).toEqual({ sessions: PROCESS_SESSIONS, lanes, turnsInFlight });
    for (const turn of turns) turn.abandon();
    await access.close();

    function take(one: Step): void {
      try {
        if (one.do === 'open' && 'tenant' in one) {
          const session = access.admitSession(one.tenant, ANY);
          sessions.push(session);
          running.add(session);
        }
        if (!('at' in one)) return;
        const session = sessions[one.at];
        const lease = turns[one.at];
        if (one.do === 'admit' && 'bytes' in one && session !== undefined) {
          turns.push(session.admitTurn(turn({ inputBytes: one.bytes, maxOutputTokens: one.max })));
        }
        if (one.do === 'lane') session?.admitLane();
        if (one.do === 'laneClosed') session?.laneClosed();
        if (one.do === 'abandon') lease?.abandon();
        if (one.do === 'release' && session !== undefined) {
          session.release();
          running.delete(session);
        }
        if ('tokens' in one) {
          const used = one.tokens === undefined ? undefined : usage(one.tokens, 1);
          if (one.do === 'late' && used !== undefined) lease?.lateUsage(used);
          else lease?.settle(record({ usage: used }));
        }
      } catch (error) {
        // Refusals are part of the schedule; anything else is not.
        expect(error).toBeInstanceOf(GatewayError);
      }
    }
  },
);

test.prop([fc.array(fc.record({ bytes: fc.nat(4_000), used: fc.nat(3_000) }), { maxLength: 30 })])(
  'settled tokens are exactly the sum of the usage',
  (turns) => {
    const { access } = open({}, [{ id: 'blue', limits: { tokensPerDay: 10_000_000 } }, { id: 'red' }]);
    const session = access.admitSession(BLUE, ANY);
    const leases = turns.map(({ bytes }) => session.admitTurn(turn({ inputBytes: bytes })));
    leases.forEach((lease, at) => {
      lease.settle(record({ usage: usage(turns[at]?.used ?? 0, 0) }));
    });
    const total = turns.reduce((sum, { used }) => sum + used, 0);
    expect(usedOf(access, 'tokens_per_day')).toBe(total);
  },
);
