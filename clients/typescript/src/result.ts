import type { Outcome } from './event.ts';
import { outcomeOf } from './event.ts';
import type { Event as EventMessage } from './gen/responses/gateway/v1/event_pb.ts';
import type { FunctionCall, OutputItem } from './gen/responses/gateway/v1/items_pb.ts';
import type { Response } from './gen/responses/gateway/v1/response_pb.ts';
import { parseWith, type Schema } from './schema.ts';

/** What a turn cost, in tokens, over all its responses. */
export interface Usage {
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
  readonly totalTokens: number;
}

export const NO_USAGE: Usage = {
  inputTokens: 0,
  cachedInputTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
  totalTokens: 0,
};

export function addUsage(a: Usage, b: Usage): Usage {
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    cachedInputTokens: a.cachedInputTokens + b.cachedInputTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    reasoningTokens: a.reasoningTokens + b.reasoningTokens,
    totalTokens: a.totalTokens + b.totalTokens,
  };
}

/** A structured answer. Refusals, incomplete answers and texts that do not fit leave `parsed` undefined. */
export interface Parsed<T> {
  readonly result: Result;
  readonly parsed: T | undefined;
  /** The model's refusal; empty if it did not refuse. */
  readonly refusal: string;
  /** Why the text of a completed answer does not fit. */
  readonly error: unknown;
}

/** The answer as the schema has it; ask for it with `TurnRequest.textFormat`. Never throws. */
export async function parseResult<T>(result: Result, schema: Schema<T>): Promise<Parsed<T>> {
  const { refusal, outcome, text } = result;
  const empty = { result, parsed: undefined, refusal, error: undefined };
  if (outcome !== 'completed' || refusal) return empty;
  try {
    return { ...empty, parsed: await parseWith(schema, text) };
  } catch (error) {
    return { ...empty, error };
  }
}

/** What a turn came to. */
export interface Result {
  readonly laneId: string;
  readonly turnId: string;
  /** Undefined as long as the turn goes on, and if it ended without a last event. */
  readonly outcome: Outcome | undefined;
  /** The last response of the turn. */
  readonly response: Response | undefined;
  /** Names the response to continue from; empty if none was created. */
  readonly responseId: string;
  /** All responses of the turn, in order. A steered turn has several. */
  readonly responses: readonly Response[];
  /** The output items of `response` that are complete. */
  readonly items: readonly OutputItem[];
  /** The visible answer. Of a turn that broke off, it is what had arrived. */
  readonly text: string;
  /** The model's refusal; empty if it did not refuse. */
  readonly refusal: string;
  /** The calls that wait for a result. */
  readonly functionCalls: readonly FunctionCall[];
  /** Of a turn of a tool loop: with all turns before it. */
  readonly usage: Usage;
  /** What the turn cost by the gateway's price table; undefined without one. */
  readonly cost:
    | { readonly amount: string; readonly currency: string; readonly pricesAsOf: string }
    | undefined;
}

/** Builds the result from the events; the one place that knows how. */
export class Accumulator {
  #outcome: Outcome | undefined;
  #responses: Response[] = [];
  #items: OutputItem[] = [];
  #text = '';
  #cost: Result['cost'];

  add(event: EventMessage): void {
    const { payload } = event;
    switch (payload.case) {
      case 'outputTextDelta':
        this.#text += payload.value.delta;
        break;
      case 'outputItemDone':
        if (payload.value.item) this.#items.push(payload.value.item);
        break;
      case 'responseCreated':
        this.#begin(payload.value.response);
        break;
      case 'responseCompleted':
      case 'responseIncomplete':
      case 'responseFailed':
        this.#finish(payload.value.response);
        break;
    }
    this.#outcome = outcomeOf(event.outcome) ?? this.#outcome;
    if (event.cost) {
      const { amount, currency, pricesAsOf } = event.cost;
      this.#cost = { amount, currency, pricesAsOf };
    }
  }

  result(turn: { readonly id: string; readonly lane: { readonly id: string } }): Result {
    const response = this.#responses.at(-1);
    return {
      laneId: turn.lane.id,
      turnId: turn.id,
      outcome: this.#outcome,
      response,
      responseId: response?.id ?? '',
      responses: [...this.#responses],
      items: [...this.#items],
      text: textOf(this.#items, this.#text),
      refusal: refusalOf(this.#items),
      functionCalls: this.#items.flatMap(({ kind }) => (kind.case === 'functionCall' ? [kind.value] : [])),
      usage: usageOf(this.#responses),
      cost: this.#cost,
    };
  }

  #begin(response: Response | undefined): void {
    if (response) this.#responses.push(response);
    this.#items = [];
    this.#text = '';
  }

  /** Replaces what response.created said. The finished response may list no output: the items then came alone. */
  #finish(response: Response | undefined): void {
    if (!response) return;
    if (this.#responses.at(-1)?.id === response.id) this.#responses.pop();
    // Otherwise a sparse upstream has left response.created out: what came so far belongs to this response.
    this.#responses.push(response);
    if (response.output.length > this.#items.length) this.#items = response.output;
  }
}

function textOf(items: readonly OutputItem[], partial: string): string {
  let text = '';
  for (const part of messageParts(items)) if (part.case === 'outputText') text += part.value.text;
  return partial.length > text.length ? partial : text;
}

function refusalOf(items: readonly OutputItem[]): string {
  let text = '';
  for (const part of messageParts(items)) if (part.case === 'refusal') text += part.value.refusal;
  return text;
}

function messageParts(items: readonly OutputItem[]) {
  return items.flatMap(({ kind }) =>
    kind.case === 'message' ? kind.value.content.map((part) => part.kind) : [],
  );
}

function usageOf(responses: readonly Response[]): Usage {
  const sum = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, totalTokens: 0 };
  for (const { usage } of responses) {
    if (!usage) continue;
    sum.inputTokens += Number(usage.inputTokens);
    sum.cachedInputTokens += Number(usage.inputTokensDetails?.cachedTokens ?? 0n);
    sum.outputTokens += Number(usage.outputTokens);
    sum.reasoningTokens += Number(usage.outputTokensDetails?.reasoningTokens ?? 0n);
    sum.totalTokens += Number(usage.totalTokens);
  }
  return sum;
}
