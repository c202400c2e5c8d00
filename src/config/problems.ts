/** Where a value came from. */
export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly file: string; readonly line: number; readonly column: number }
  | { readonly kind: 'environment'; readonly name: string }
  | { readonly kind: 'flag'; readonly name: string };

/** One thing that is wrong with the configuration. */
export interface ConfigProblem {
  /** The field, e.g. `upstreams[1].url`; empty for the file as a whole. */
  readonly path: string;
  /** What stands there now, cut and without secrets; undefined: nothing does. */
  readonly found: string | undefined;
  readonly expected: string;
  /** How to mend it, when there is a good guess. */
  readonly help?: string;
  readonly origin: Origin;
}

/** Everything that is wrong, at once. The command line prints it and exits with 2. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly ConfigProblem[];
  /** Files that the configuration names, as far as it could be read: one of them may be what has to be mended. */
  readonly files: readonly string[];

  constructor(problems: readonly ConfigProblem[], files: readonly string[] = []) {
    super(renderProblems(problems));
    this.problems = problems;
    this.files = files;
  }
}

export function renderProblems(problems: readonly ConfigProblem[]): string {
  const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
  return [`${count} in the configuration:`, ...problems.map(renderProblem)].join('\n\n');
}

export function renderOrigin(origin: Origin): string {
  switch (origin.kind) {
    case 'default':
      return 'default';
    case 'file':
      return `${origin.file}:${origin.line}:${origin.column}`;
    case 'environment':
      return `environment ${origin.name}`;
    case 'flag':
      return `flag ${origin.name}`;
  }
}

export type PathSegment = string | number;

/** `['upstreams', 1, 'url']` → `upstreams[1].url`. */
export function renderPath(path: readonly PathSegment[]): string {
  return path
    .map((part, at) => (typeof part === 'number' ? `[${part}]` : at === 0 ? part : `.${part}`))
    .join('');
}

const MAX_SUGGESTION_DISTANCE = 3;

/** The candidate that was most likely meant, if any is near. */
export function didYouMean(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.min(MAX_SUGGESTION_DISTANCE, Math.ceil(word.length / 3)) + 1;
  for (const candidate of candidates) {
    if (word.length >= 3 && candidate.startsWith(`${word}_`)) return candidate;
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function renderProblem(problem: ConfigProblem): string {
  const rows: [string, string][] = [];
  if (problem.found !== undefined) rows.push(['found', problem.found]);
  rows.push(['expected', problem.expected]);
  if (problem.help !== undefined) rows.push(['help', problem.help]);
  if (problem.origin.kind !== 'default') rows.push(['at', renderOrigin(problem.origin)]);
  const lines = rows.map(([label, text]) => `    ${label.padEnd(8)}  ${text}`);
  return [`  ${problem.path || '(the whole file)'}`, ...lines].join('\n');
}

/** Levenshtein, with a swap of neighbours counted as one edit: the commonest typing mistake. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const same = a[row - 1] === b[column - 1];
      let cost = Math.min(
        at(last, column) + 1,
        at(current, column - 1) + 1,
        at(last, column - 1) + (same ? 0 : 1),
      );
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) cost = Math.min(cost, at(beforeLast, column - 2) + 1);
      current.push(cost);
    }
    [beforeLast, last] = [last, current];
  }
  return at(last, b.length);
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Number.POSITIVE_INFINITY;
}
