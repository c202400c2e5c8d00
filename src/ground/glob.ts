export type Glob = (value: string) => boolean;

/** `*` stands for any run of characters. Linear in the value for every pattern, unlike a regular expression. */
export function compileGlob(pattern: string): Glob {
  const parts = pattern.split('*');
  const first = parts[0] ?? '';
  if (parts.length === 1) return (value) => value === pattern;
  const last = parts[parts.length - 1] ?? '';
  const middle = parts.slice(1, -1);
  return (value) => {
    if (value.length < first.length + last.length) return false;
    if (!value.startsWith(first) || !value.endsWith(last)) return false;
    let from = first.length;
    const end = value.length - last.length;
    for (const part of middle) {
      const at = value.indexOf(part, from);
      if (at === -1 || at + part.length > end) return false;
      from = at + part.length;
    }
    return true;
  };
}

/** As `compileGlob`, but `*` stays within one part of a path. */
export function compilePathGlob(pattern: string): Glob {
  const segments = pattern.split('/').map(compileGlob);
  return (value) => {
    const parts = value.split('/');
    return parts.length === segments.length && segments.every((fits, at) => fits(parts[at] ?? ''));
  };
}

/** Undefined patterns allow everything. */
export function compileAllowList(patterns: readonly string[] | undefined): AllowList {
  if (patterns === undefined || patterns.includes('*')) {
    return { restricted: false, patterns: ['*'], allows: () => true };
  }
  const globs = patterns.map(compileGlob);
  return { restricted: true, patterns, allows: (value) => globs.some((fits) => fits(value)) };
}

export interface AllowList {
  readonly restricted: boolean;
  readonly patterns: readonly string[];
  allows(value: string): boolean;
}
