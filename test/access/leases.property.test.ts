import { fc, test } from '@fast-check/vitest';
import { expect } from 'vitest';
import type { SessionLease, TurnLease } from '../../src/access/types.ts';
import { GatewayError } from '../../src/errors.ts';
import { ANY, BLUE, open, RED, record, turn, usage } from './support.ts';

const LIMITS = { sessions: 4, lanes: 6, turnsInFlight: 5, tokensPerMinute: 50_000, turnsPerMinute: 10_000 };

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
    const { access } = open({ processLimits: { ...LIMITS, sessions: 6 } }, [
      { id: 'blue', limits: LIMITS },
      { id: 'red', limits: LIMITS },
    ]);
    const sessions: SessionLease[] = [];
    const turns: TurnLease[] = [];
    for (const one of steps) {
      take(one);
      const { process, tenants } = access.stats();
      for (const name of ['sessions', 'lanes', 'turnsInFlight'] as const) {
        const [blue = 0, red = 0] = [tenants['blue']?.[name], tenants['red']?.[name]];
        expect(process[name]).toBe(blue + red);
        expect(Math.min(blue, red)).toBeGreaterThanOrEqual(0);
        expect(Math.max(blue, red)).toBeLessThanOrEqual(LIMITS[name]);
      }
      for (const tenant of Object.values(tenants)) {
        for (const used of Object.values(tenant.used)) expect(used).toBeGreaterThanOrEqual(0);
      }
    }
    for (const session of sessions) session.release();
    const free = { sessions: 0, lanes: 0, turnsInFlight: 0 };
    expect(access.stats().process).toEqual(free);
    expect(access.stats().tenants['blue']).toMatchObject(free);
    expect(access.stats().tenants['red']).toMatchObject(free);
    for (const turn of turns) turn.abandon();
    await access.close();

    function take(one: Step): void {
      try {
        if (one.do === 'open' && 'tenant' in one) sessions.push(access.admitSession(one.tenant, ANY));
        if (!('at' in one)) return;
        const session = sessions[one.at];
        const running = turns[one.at];
        if (one.do === 'admit' && 'bytes' in one && session !== undefined) {
          turns.push(session.admitTurn(turn({ inputBytes: one.bytes, maxOutputTokens: one.max })));
        }
        if (one.do === 'lane') session?.admitLane();
        if (one.do === 'laneClosed') session?.laneClosed();
        if (one.do === 'abandon') running?.abandon();
        if (one.do === 'release') session?.release();
        if ('tokens' in one) {
          const used = one.tokens === undefined ? undefined : usage(one.tokens, 1);
          if (one.do === 'late' && used !== undefined) running?.lateUsage(used);
          else running?.settle(record({ usage: used }));
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
    expect(access.stats().tenants['blue']?.used.tokensPerDay).toBe(total);
  },
);
