import { compileGlob } from '../ground/glob.ts';

/** What routing needs to know of an upstream. */
export interface Routable {
  readonly name: string;
  /** Globs; empty or absent: every model. */
  readonly models?: readonly string[] | undefined;
  /** Tried in this order when this one fails. Absent: the later upstreams that serve the model. */
  readonly fallback?: readonly string[] | undefined;
  /** Of the configured URL: a caller's own key stays with it. */
  readonly origin: string;
}

export interface RouteRequest {
  readonly upstream: string | undefined;
  readonly model: string | undefined;
  readonly current: string | undefined;
  /** Undefined: all. */
  readonly allowed: readonly string[] | undefined;
  /** The key is the caller's or the tenant's, not the upstream's own. */
  readonly ownKey: boolean;
  /** Whether a fallback may be tried in this dial. */
  readonly mayFailOver: boolean;
}

/**
 * The upstreams to try, in order; empty: none fits. A session that names its upstream leaves it only for that
 * upstream's explicit fallbacks: it may have been named for a reason.
 */
export function candidates<U extends Routable>(all: readonly U[], request: RouteRequest): readonly U[] {
  const { upstream, model, current, ownKey, mayFailOver } = request;
  const upstreams = all.filter(({ name }) => request.allowed?.includes(name) ?? true);
  const here = upstreams.find(({ name }) => name === current);
  if (here !== undefined && !mayFailOver) return [here];
  const first =
    upstream === undefined
      ? (upstreams.find((each) => serves(each, model)) ?? (model === undefined ? upstreams[0] : undefined))
      : upstreams.find(({ name }) => name === upstream);
  if (first === undefined) return [];
  const fallbacks =
    first.fallback !== undefined
      ? first.fallback.flatMap((name) => upstreams.filter((each) => each.name === name))
      : upstream === undefined
        ? upstreams.slice(upstreams.indexOf(first) + 1).filter((each) => serves(each, model))
        : [];
  const ordered = [first, ...fallbacks.filter((each) => each !== first)];
  const allowed = ownKey ? ordered.filter(({ origin }) => origin === first.origin) : ordered;
  const preferred = allowed.find(({ name }) => name === current);
  const result =
    preferred === undefined ? allowed : [preferred, ...allowed.filter((each) => each !== preferred)];
  return mayFailOver ? result : result.slice(0, 1);
}

/** Without a model only an upstream for all of them is sure to fit. */
export function serves({ models }: Pick<Routable, 'models'>, model: string | undefined): boolean {
  if (models === undefined || models.length === 0) return true;
  return model !== undefined && models.some((glob) => compileGlob(glob)(model));
}
