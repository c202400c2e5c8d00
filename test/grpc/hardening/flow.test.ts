import { describe, expect, it } from 'vitest';
import { ByteLedger } from '../../../src/grpc/hardening/flow.ts';

describe('ByteLedger', () => {
  it('closes at the high mark and opens once at half of it', () => {
    const ledger = new ByteLedger(100);
    ledger.wrote(60);
    expect(ledger.hasRoom).toBe(true);
    ledger.wrote(40);
    expect(ledger.hasRoom).toBe(false);
    ledger.wrote(30);
    expect(ledger.left()).toBe(false);
    expect(ledger.inFlightBytes).toBe(70);
    expect(ledger.left()).toBe(true);
    expect(ledger.hasRoom).toBe(true);
    expect(ledger.left()).toBe(false);
    expect(ledger.inFlightBytes).toBe(0);
  });

  it('takes one message larger than the limit, and then no more', () => {
    const ledger = new ByteLedger(100);
    ledger.wrote(20_000_000);
    expect(ledger.hasRoom).toBe(false);
    expect(ledger.left()).toBe(true);
  });
});
