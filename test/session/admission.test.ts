import { describe, expect, test } from 'vitest';
import type { SessionLease, TurnLease } from '../../src/access/types.ts';
import type { CreateBody, StartTurn, TurnRecord, Usage } from '../../src/core/types.ts';
import { Admission } from '../../src/session/admission.ts';
import { SessionBudget } from '../../src/session/budget.ts';

const usage = (outputTokens: number): Usage => ({
  inputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteTokens: 0,
  outputTokens,
  reasoningTokens: 0,
});

describe('admission', () => {
  test('late usage counts once for each response of the turn, and own spending goes to the session', () => {
    const { admission, told } = open();
    run(admission, 't1', 'x');
    admission.fact({ kind: 'turnEnded', record: { turnId: 't1', outcome: 'CANCELLED' } as TurnRecord });
    for (const [responseId, tokens] of [
      ['r1', 10],
      ['r1', 10],
      ['r2', 1_000],
    ] as const)
      admission.fact({ kind: 'lateUsage', turnId: 't1', responseId, usage: usage(tokens) });
    admission.fact({ kind: 'lateUsage', turnId: '', responseId: 'r3', usage: usage(7) });
    admission.fact({ kind: 'lateUsage', turnId: 'never', responseId: 'r4', usage: usage(5) });
    expect(told).toEqual(['settled t1', 'late t1 10', 'late t1 1000', 'session 7']);
  });

  test('what no turn used, and what steers may use, counts in the budget of the session', () => {
    const budget = new SessionBudget({ tokens: 1_000 });
    const { admission } = open(budget);
    admission.fact({ kind: 'lateUsage', turnId: '', responseId: 'r1', usage: usage(700) });
    expect(budget.spent.tokens).toBe(700);
    run(admission, 't1', 'x');
    const steer = () => admission.addInput({ kind: 'steerTurn', laneId: 'x', turnId: 't1', input: ['{}'] });
    steer();
    expect(steer).toThrow('has 300 left');
    admission.addInput({ kind: 'injectTurn', laneId: 'x', turnId: 't1', input: ['{}'] });
  });

  test('a steer is held with the turn that it names, or with the one that its lane runs', () => {
    const { admission, told } = open();
    run(admission, 't1', 'x');
    run(admission, 't2', 'x');
    run(admission, 't3', 'y');
    const steer = (laneId: string, turnId?: string) =>
      admission.addInput({ kind: 'steerTurn', laneId, turnId, input: ['{}'] });
    steer('x');
    steer('x', 't2');
    steer('y');
    steer('z');
    expect(told).toEqual(['steer t1', 'steer t2', 'steer t3', 'steer of nothing']);
  });

  test('items become the tenant’s', () => {
    const { admission, told } = open();
    admission.fact({ kind: 'itemDone', itemId: 'rs_1' });
    expect(told).toEqual(['item rs_1']);
  });
});

function run(admission: Admission, turnId: string, laneId: string): void {
  const create = { fields: new Map(), input: [] } as unknown as CreateBody;
  const turn = {
    kind: 'startTurn',
    laneId,
    turnId,
    create,
    chain: { kind: 'automatic' },
  } as unknown as StartTurn;
  admission.around(turn, () => {
    admission.fact({
      kind: 'turnAccepted',
      laneId,
      turnId,
      model: undefined,
      traceContext: undefined,
      atMs: 0,
    });
  });
}

function open(budget?: SessionBudget) {
  const told: string[] = [];
  const names = new Map<TurnLease, string>();
  let turns = 0;
  const lease = {
    admitLane: () => {},
    laneClosed: () => {},
    ownItem: (id: string) => told.push(`item ${id}`),
    takeLow: () => [],
    guess: () => ({ tokens: 100, money: 0n }),
    usedTokens: ({ outputTokens }: Usage) => {
      told.push(`session ${outputTokens}`);
      return { tokens: outputTokens, money: 0n };
    },
    admitInput: (_input: readonly string[], turn?: TurnLease, answered?: boolean) => {
      told.push(`steer ${turn === undefined ? 'of nothing' : names.get(turn)}`);
      return { tokens: answered === true ? 110 : 10, money: 0n };
    },
    admitTurn: () => {
      turns += 1;
      const name = `t${turns}`;
      const turn: TurnLease = {
        settle: () => told.push(`settled ${name}`),
        abandon: () => told.push(`abandoned ${name}`),
        holdMore: () => ({ tokens: 0, money: 0n }),
        lateUsage: ({ outputTokens }) => {
          told.push(`late ${name} ${outputTokens}`);
          return { use: { tokens: 0, money: 0n }, cost: undefined, unpriced: undefined };
        },
      };
      names.set(turn, name);
      return turn;
    },
  };
  return { admission: new Admission(lease as unknown as SessionLease, undefined, budget), told };
}
