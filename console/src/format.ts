/** 1,234 · 12.3k · 4.5M */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size < 10) return trim(value, size < 1 ? 2 : 1);
  if (size < 10_000) return Math.round(value).toLocaleString('en-US');
  if (size < 1e6) return `${trim(value / 1e3, size < 1e5 ? 1 : 0)}k`;
  if (size < 1e9) return `${trim(value / 1e6, size < 1e8 ? 1 : 0)}M`;
  return `${trim(value / 1e9, 1)}G`;
}

export function bytes(value: number): string {
  if (value < 1_000) return `${Math.round(value)} B`;
  if (value < 1e6) return `${trim(value / 1e3, value < 1e5 ? 1 : 0)} kB`;
  if (value < 1e9) return `${trim(value / 1e6, value < 1e8 ? 1 : 0)} MB`;
  return `${trim(value / 1e9, 1)} GB`;
}

/** 3 ms · 1.25 s · 4 m 10 s · 2 h 5 m */
export function duration(ms: number | undefined): string {
  if (ms === undefined || !Number.isFinite(ms)) return '–';
  if (ms < 1) return ms === 0 ? '0 ms' : '<1 ms';
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${trim(ms / 1_000, ms < 10_000 ? 2 : 1)} s`;
  const s = Math.round(ms / 1_000);
  if (s < 3_600) return `${Math.floor(s / 60)} m ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} m`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`;
}

/** Coarse, for lists: 3 s, 12 m, 5 h */
export function age(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1_000));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} m`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

export function percent(share: number): string {
  if (!Number.isFinite(share)) return '–';
  const value = share * 100;
  return `${value === 0 || value >= 10 ? Math.round(value) : trim(value, value < 1 ? 2 : 1)} %`;
}

export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString('en-GB', { hour12: false });
}

/** Without zeros at the end of a fraction: 1.50 is 1.5, 220 stays. */
function trim(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)));
}
