import { type Event, GatewayError, type Result, TurnError, type TurnRequest } from '../src/index.ts';

export interface WantedError {
  readonly reason?: string | readonly string[];
  readonly code?: string | readonly string[];
  readonly replay?: string;
  readonly phase?: string;
  readonly inferred?: boolean;
  readonly retry_after?: boolean;
  readonly upstream_code?: string;
  readonly upstream_status?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly metadata_keys?: readonly string[];
  readonly result_text?: string;
}

export function compareError(wanted: WantedError, error: GatewayError): void {
  const turn = error instanceof TurnError ? error : undefined;
  oneOf('reason', wanted.reason, error.reason);
  oneOf('code', wanted.code, error.code);
  oneOf('replay', wanted.replay, error.replay);
  oneOf('phase', wanted.phase, turn?.phase);
  if (wanted.inferred !== undefined) equal('inferred', wanted.inferred, error.inferred);
  if (wanted.retry_after !== undefined) {
    equal('retry_after', wanted.retry_after, error.retryAfterMs !== undefined);
  }
  oneOf('upstream_code', wanted.upstream_code, turn?.upstream?.code);
  if (wanted.upstream_status !== undefined) {
    equal('upstream_status', wanted.upstream_status, turn?.upstream?.status);
  }
  for (const [key, value] of Object.entries(wanted.metadata ?? {})) {
    equal(`metadata ${key}`, value, error.metadata[key]);
  }
  for (const key of wanted.metadata_keys ?? []) equal(`metadata ${key}`, true, key in error.metadata);
  if (wanted.result_text !== undefined) equal('result_text', wanted.result_text, turn?.result?.text);
}

export function compareResult(
  // biome-ignore lint/suspicious/noExplicitAny: as in case-run.ts
  fields: Readonly<Record<string, any>>,
  result: Result,
  events: readonly Event[],
): void {
  if (fields['outcome'] !== undefined) equal('outcome', fields['outcome'], result.outcome);
  if (fields['text'] !== undefined) equal('text', fields['text'], result.text);
  if (fields['text_matches'] !== undefined && !new RegExp(fields['text_matches']).test(result.text)) {
    throw new Error(`text: ${result.text.slice(0, 200)} does not match ${fields['text_matches']}`);
  }
  if (fields['text_length'] !== undefined) equal('text_length', fields['text_length'], result.text.length);
  if (fields['refusal'] !== undefined) equal('refusal', fields['refusal'], result.refusal);
  if (fields['responses'] !== undefined) equal('responses', fields['responses'], result.responses.length);
  if (fields['function_calls'] !== undefined) {
    const names = result.functionCalls.map(({ name }) => name);
    equal('function_calls', JSON.stringify(fields['function_calls']), JSON.stringify(names));
  }
  if (fields['usage']) equal('usage', true, result.usage.totalTokens > 0);
  if (fields['usage_of_all_turns']) {
    const last = Number(result.response?.usage?.totalTokens ?? 0n);
    equal('usage_of_all_turns', true, last > 0 && result.usage.totalTokens > last);
  }
  if (fields['cost'] !== undefined) {
    const { amount, currency, pricesAsOf } = result.cost ?? {};
    const told = result.cost ? { amount, currency, prices_as_of: pricesAsOf } : null;
    equal('cost', JSON.stringify(fields['cost']), JSON.stringify(told));
  }
  if (fields['deltas'] !== undefined) {
    const deltas = events.filter(({ type }) => type === 'response.output_text.delta').length;
    equal('deltas', fields['deltas'], deltas);
  }
  for (const type of fields['types'] ?? []) {
    if (!events.some((event) => event.type === type)) throw new Error(`no event of type ${type}`);
  }
  const jsonOf = fields['json_of'];
  if (jsonOf) {
    const found = events.some(
      ({ type, json }) => type === jsonOf.type && new TextDecoder().decode(json).includes(jsonOf.contains),
    );
    if (!found) throw new Error(`no ${jsonOf.type} with ${jsonOf.contains}`);
  }
}

export function equal(what: string, wanted: unknown, found: unknown): void {
  if (wanted !== found)
    throw new Error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

function oneOf(
  what: string,
  wanted: string | readonly string[] | undefined,
  found: string | undefined,
): void {
  if (wanted === undefined) return;
  const allowed = typeof wanted === 'string' ? [wanted] : wanted;
  if (found === undefined || !allowed.includes(found)) equal(what, allowed.join(' or '), found);
}

/** The cases have the API's names. */
export function optionsOf(
  // biome-ignore lint/suspicious/noExplicitAny: as in case-run.ts
  given: Readonly<Record<string, any>>,
): TurnRequest {
  const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [camel(name), value]));
}

export async function expecting(
  wanted: WantedError | undefined,
  work: () => Promise<unknown>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!wanted || !(error instanceof GatewayError)) {
      throw error instanceof GatewayError
        ? new Error(`${error.reason} ${error.code}: ${error.message}`)
        : error;
    }
    return compareError(wanted, error);
  }
  if (wanted) throw new Error(`no error, but ${JSON.stringify(wanted)} was expected`);
}
