import type { ReplayVerdict, TurnPhase } from '../core/types.ts';
import { REASONS, type Reason } from '../errors.ts';
import { ATTR, providerName } from './genai-names.ts';
import { OTHER } from './labels.ts';
import { CONCERNS_OPERATORS } from './refusals.ts';

export type LabelSet = Readonly<Record<string, string | number>>;
/** Values of each closed label, or the label sets themselves where not every combination is possible. */
export type FromStart =
  | Readonly<Record<string, readonly string[]>>
  | ((known: KnownLabels) => readonly LabelSet[]);

/** What the configuration knows of labels whose values are open in general. */
export interface KnownLabels {
  readonly upstreams: readonly KnownUpstream[];
  readonly models: readonly string[];
  /** Undefined: metrics have no tenant label. */
  readonly tenants: readonly string[] | undefined;
  /** Of the price table; undefined: nothing is priced. */
  readonly currency: string | undefined;
}

export interface KnownUpstream {
  readonly name: string;
  /** In the configuration's words. */
  readonly provider: string;
  readonly serverAddress?: string | undefined;
  readonly serverPort?: number | undefined;
}

export const NOTHING_KNOWN: KnownLabels = {
  upstreams: [],
  models: [],
  tenants: undefined,
  currency: undefined,
};

/** Beyond it models and tenants start together, as `_OTHER`. */
const MAX_SETS = 500;

/** Label sets that a counter starts with. */
export function startLabels(
  labels: readonly string[],
  fromStart: FromStart | undefined,
  known: KnownLabels,
): readonly LabelSet[] {
  if (typeof fromStart === 'function') return fromStart(known);
  const all = combine(labels, fromStart ?? {}, known);
  if (all.length <= MAX_SETS) return all;
  const fewer = { ...known, models: [], ...(known.tenants !== undefined && { tenants: [] }) };
  return combine(labels, fromStart ?? {}, fewer);
}

function combine(
  labels: readonly string[],
  closed: Readonly<Record<string, readonly string[]>>,
  { upstreams, models, tenants, currency }: KnownLabels,
): LabelSet[] {
  let sets = labels.some((label) => UPSTREAM_LABELS.has(label)) ? ofUpstreams(labels, upstreams) : [{}];
  const multiply = (label: string, values: readonly string[]): void => {
    sets = sets.flatMap((set) => values.map((value) => ({ ...set, [label]: value })));
  };
  for (const label of labels) {
    const values = closed[label];
    if (values !== undefined) multiply(label, values);
    else if (label === ATTR.requestModel) multiply(label, [...models, OTHER]);
    else if (label === 'tenant' && tenants !== undefined) multiply(label, [...tenants, OTHER]);
    else if (label === 'currency') multiply(label, currency === undefined ? [] : [currency]);
  }
  if (!labels.includes(ATTR.responseModel)) return sets;
  // A model answers under its own name, or under a dated one that is not on the list.
  return sets.flatMap((set: LabelSet) =>
    [...new Set([set[ATTR.requestModel] ?? OTHER, OTHER])].map((model) => ({
      ...set,
      [ATTR.responseModel]: model,
    })),
  );
}

const UPSTREAM_LABELS: ReadonlySet<string> = new Set([
  'upstream',
  ATTR.provider,
  'server.address',
  'server.port',
]);

type SomeUpstream = Omit<KnownUpstream, 'name'> & { readonly name: string | undefined };

/** One set for each upstream that these labels tell from the others. */
function ofUpstreams(labels: readonly string[], upstreams: readonly KnownUpstream[]): LabelSet[] {
  // Turns that never came to an upstream have no provider.
  const nobody = labels.includes('upstream') ? [] : [{ name: undefined, provider: OTHER }];
  const sets = [...upstreams, ...nobody].map(
    ({ name, provider, serverAddress, serverPort }: SomeUpstream) => {
      const all = {
        upstream: name,
        [ATTR.provider]: providerName(provider),
        'server.address': serverAddress,
        'server.port': serverPort,
      };
      return Object.fromEntries(
        Object.entries(all).filter(
          (entry): entry is [string, string | number] => labels.includes(entry[0]) && entry[1] !== undefined,
        ),
      );
    },
  );
  return [...new Map(sets.map((set) => [JSON.stringify(set), set])).values()];
}

/** From each upstream to each that a dial can go on to. */
export function failovers({ upstreams }: KnownLabels): readonly LabelSet[] {
  if (upstreams.length * (upstreams.length - 1) > MAX_SETS) return [];
  return upstreams.flatMap(({ name: from }) =>
    upstreams.filter(({ name }) => name !== from).map(({ name: to }) => ({ from, to })),
  );
}

const PHASES = Object.keys({
  NOT_SENT: true,
  SENT: true,
  CREATED: true,
  OUTPUT_STARTED: true,
} satisfies Record<TurnPhase, true>);
const VERDICTS = Object.keys({ SAFE: true, UNSAFE: true, UNKNOWN: true } satisfies Record<
  ReplayVerdict,
  true
>);

/** Turns that callers fail themselves have too many reasons; these are what operators are paged for. */
export function failures(): readonly LabelSet[] {
  return Object.entries(REASONS)
    .filter(([, { fault }]) => fault !== 'client')
    .flatMap(([reason, { fault }]) =>
      PHASES.flatMap((phase) => VERDICTS.map((replay) => ({ 'error.type': reason, fault, phase, replay }))),
    );
}

const LIMITS = {
  session: ['sessions', 'connections', 'metadata'],
  call: ['turns_in_flight', 'turns_per_minute', 'tokens_per_minute'],
  turn: [
    'lanes',
    'lanes_per_session',
    'turns_in_flight',
    'turns_per_minute',
    'tokens_per_minute',
    'tokens_per_day',
    'tokens_per_month',
    'money_per_day',
    'money_per_month',
    'held_input_bytes',
  ],
} as const;

/** Requests of callers that operators want to know of; the limit is told of LIMIT_EXCEEDED alone. */
export function refusals({ tenants }: KnownLabels): readonly LabelSet[] {
  const sets = Object.entries(LIMITS).flatMap(([request, limits]) =>
    [...CONCERNS_OPERATORS].flatMap((reason: Reason): LabelSet[] =>
      reason === 'LIMIT_EXCEEDED'
        ? limits.map((limit) => ({ request, reason, limit }))
        : [{ request, reason }],
    ),
  );
  if (tenants === undefined) return sets;
  const named = tenants.length * sets.length > MAX_SETS ? [] : tenants;
  return [...named, OTHER].flatMap((tenant) => sets.map((set) => ({ ...set, tenant })));
}
