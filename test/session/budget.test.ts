import { describe, expect, test } from 'vitest';
import { GatewayError } from '../../src/errors.ts';
import { SessionBudget } from '../../src/session/budget.ts';

const tokens = (count: number) => ({ tokens: count, money: 0n });

function refusal(call: () => unknown) {
  try {
    call();
  } catch (error) {
    if (error instanceof GatewayError) return { reason: error.reason, ...error.metadata };
  }
  return undefined;
}

describe('a budget of a session', () => {
  test('counts what turns used, not what they were held for', () => {
    const budget = new SessionBudget({ tokens: 1_000 });
    budget.reserve('a', tokens(900));
    budget.settle('a', tokens(100));
    budget.reserve('b', tokens(900));
    budget.settle('b', tokens(700));
    expect(budget.spent).toEqual({ turns: 2, tokens: 800, money: '0' });
  });

  test('a turn alone may use what is left, whatever its guess; the next is refused with what is left', () => {
    const budget = new SessionBudget({ tokens: 1_000 });
    budget.reserve('a', tokens(5_000));
    budget.settle('a', tokens(999));
    budget.reserve('b', tokens(5_000));
    budget.settle('b', tokens(40));
    expect(refusal(() => budget.reserve('c', tokens(1)))).toEqual({
      reason: 'LIMIT_EXCEEDED',
      limit: 'budget_tokens',
      value: '1000',
      left: '0',
      scope: 'session',
    });
  });

  test('what runs is held: turns side by side do not share what is left', () => {
    const budget = new SessionBudget({ tokens: 1_000 });
    budget.reserve('a', tokens(600));
    expect(refusal(() => budget.reserve('b', tokens(600)))).toMatchObject({ left: '1000' });
    budget.release('a');
    budget.reserve('b', tokens(600));
    budget.reserve('c', tokens(400));
  });

  test('what a steer adds is held with its turn, and refused where nothing is left', () => {
    const budget = new SessionBudget({ tokens: 1_000 });
    budget.reserve('a', tokens(600));
    budget.holdMore('a', tokens(400));
    expect(refusal(() => budget.holdMore('a', tokens(1)))).toMatchObject({
      reason: 'LIMIT_EXCEEDED',
      limit: 'budget_tokens',
    });
    expect(refusal(() => budget.reserve('b', tokens(1)))).toMatchObject({ limit: 'budget_tokens' });
    budget.settle('a', tokens(10));
    budget.holdMore('a', tokens(5_000));
    budget.reserve('b', tokens(990));
    expect(budget.spent.tokens).toBe(10);
  });

  test('money is told exactly', () => {
    const budget = new SessionBudget({ money: 500_000_000_000n });
    budget.reserve('a', { tokens: 1, money: 0n });
    budget.settle('a', { tokens: 1, money: 499_999_962_500n });
    budget.reserve('b', { tokens: 1, money: 0n });
    budget.settle('b', { tokens: 1, money: 37_500n });
    expect(refusal(() => budget.reserve('c', { tokens: 1, money: 0n }))).toMatchObject({
      limit: 'budget_money',
      value: '0.5',
      left: '0',
    });
    expect(budget.spent.money).toBe('0.5');
  });

  test('turns that never ran do not count', () => {
    const budget = new SessionBudget({ turns: 1 });
    budget.reserve('a', tokens(1));
    budget.release('a');
    budget.reserve('b', tokens(1));
    budget.settle('b', tokens(1));
    expect(refusal(() => budget.reserve('c', tokens(1)))).toMatchObject({ limit: 'budget_turns', left: '0' });
  });

  test('a turn of which nothing is known counts by its guess, until its usage comes', () => {
    const budget = new SessionBudget({ tokens: 1_000 });
    budget.reserve('a', tokens(800));
    budget.settle('a', undefined);
    expect(budget.spent.tokens).toBe(800);
    budget.late('a', tokens(30));
    expect(budget.spent.tokens).toBe(30);
    budget.late('a', tokens(12));
    expect(budget.spent.tokens).toBe(42);
  });

  test('is told to be low once, at 80 %', () => {
    const budget = new SessionBudget({ tokens: 1_000, turns: 100 });
    budget.reserve('a', tokens(1));
    budget.settle('a', tokens(799));
    expect(budget.takeLow()).toEqual([]);
    budget.add(tokens(1));
    expect(budget.takeLow()).toEqual([{ name: 'tokens', used: '800', limit: '1000' }]);
    budget.add(tokens(1));
    expect(budget.takeLow()).toEqual([]);
  });

  test('goes on with what was spent elsewhere', () => {
    const budget = new SessionBudget({ money: 1_000_000_000_000n }, { turns: 3, tokens: 9, money: '0.9' });
    expect(budget.takeLow()).toEqual([{ name: 'money', used: '0.9', limit: '1' }]);
    budget.reserve('a', { tokens: 1, money: 0n });
    budget.settle('a', { tokens: 1, money: 100_000_000_000n });
    expect(budget.spent).toEqual({ turns: 4, tokens: 10, money: '1' });
  });
});
