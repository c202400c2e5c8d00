/**
 * Money as whole picos (10⁻¹² of the currency's unit), so that nothing is ever rounded: a price of 0.0375 for a million
 * tokens is 37,500 of them for each token.
 */
export type Picos = bigint;

export const ZERO: Picos = 0n;

const DECIMALS = 12;
const PICOS = 10n ** BigInt(DECIMALS);
const PICOS_PER_NANO = 1_000n;
const DECIMAL = /^(\d{1,12})(?:\.(\d{1,12}))?$/;

/** Undefined: not a decimal of at most twelve digits before and after the point, e.g. `0.50`. */
export function parseMoney(text: string): Picos | undefined {
  const [, whole, fraction = ''] = DECIMAL.exec(text) ?? [];
  if (whole === undefined) return undefined;
  return BigInt(whole) * PICOS + BigInt(fraction.padEnd(DECIMALS, '0'));
}

/** Exact, without zeros at the end: `0.00123`. */
export function formatMoney(picos: Picos): string {
  const sign = picos < 0n ? '-' : '';
  const digits = (picos < 0n ? -picos : picos).toString().padStart(DECIMALS + 1, '0');
  const fraction = digits.slice(-DECIMALS).replace(/0+$/, '');
  return `${sign}${digits.slice(0, -DECIMALS)}${fraction === '' ? '' : `.${fraction}`}`;
}

/** Rounded up: what windows count in, up to nine million of the currency's units. */
export function toNanos(picos: Picos): number {
  return Number((picos + PICOS_PER_NANO - 1n) / PICOS_PER_NANO);
}

export function fromNanos(nanos: number): Picos {
  return BigInt(Math.round(nanos)) * PICOS_PER_NANO;
}

/** For gauges and counters, which hold floating-point numbers. */
export function toNumber(picos: Picos): number {
  return Number(picos) / Number(PICOS);
}
