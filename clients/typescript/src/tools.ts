import { create } from '@bufbuild/protobuf';
import { toJSONSchema, type z } from 'zod';
import type { FunctionCall, InputItem } from './gen/responses/gateway/v1/items_pb.ts';
import { type Tool, ToolSchema } from './gen/responses/gateway/v1/tools_pb.ts';
import type { Lane } from './lane.ts';
import { callOutput, type TurnRequest } from './request.ts';
import type { Result } from './result.ts';
import type { Turn } from './turn.ts';

/** A model that still calls tools after so many turns is most likely going in circles. */
export const DEFAULT_MAX_TURNS = 32;

export interface ToolContext {
  readonly callId: string;
  /** That of the tool loop. */
  readonly signal: AbortSignal | undefined;
}

/** A function that the model may call. Make it with {@link tool}. */
export interface FunctionTool {
  readonly name: string;
  readonly spec: Tool;
  /** @throws whatever goes wrong: it becomes the call's error result. */
  readonly call: (args: string, context: ToolContext) => Promise<string>;
}

export interface ToolLoop {
  readonly functions: readonly FunctionTool[];
  /** Default: {@link DEFAULT_MAX_TURNS}. */
  readonly maxTurns?: number;
  /** Ends the waiting for turns and is handed to the functions; it does not cancel the turn that runs. */
  readonly signal?: AbortSignal;
}

/** The model still called functions in the last turn that was allowed. */
export class TurnLimitError extends Error {
  override readonly name = 'TurnLimitError';
  /** Of the last turn. */
  readonly result: Result;

  constructor(result: Result) {
    super('the tool loop reached its limit of turns');
    this.result = result;
  }
}

/**
 * Makes a tool of a function. Its arguments are checked with `input`, whose JSON Schema the model is given. Results
 * are written as JSON, strings as they are. An error goes to the model as the result `{"error": …}`.
 * @throws if `input` has no JSON Schema.
 */
export function tool<Input extends z.ZodObject>(definition: {
  readonly name: string;
  readonly description?: string;
  readonly input: Input;
  readonly run: (input: z.output<Input>, context: ToolContext) => unknown;
}): FunctionTool {
  const { name, description, input, run } = definition;
  const { $schema: _, ...schema } = toJSONSchema(input, { io: 'input' }) as Record<string, unknown>;
  const strict = closeObjects(schema);
  return {
    name,
    spec: create(ToolSchema, {
      kind: {
        case: 'function',
        value: {
          name,
          ...(description !== undefined && { description }),
          parameters: new TextEncoder().encode(JSON.stringify(schema)),
          strict,
        },
      },
    }),
    async call(args, context) {
      const parsed = input.safeParse(parseJson(args));
      if (!parsed.success) throw new Error(`the arguments do not fit the schema: ${parsed.error.message}`);
      const output: unknown = await run(parsed.data, context);
      return typeof output === 'string' ? output : (JSON.stringify(output) ?? 'null');
    },
  };
}

export async function runTools(lane: Lane, request: TurnRequest, loop: ToolLoop): Promise<Result> {
  let last: Turn | undefined;
  for await (const turn of toolTurns(lane, request, loop)) last = turn;
  if (!last) throw new Error('a tool loop has at least one turn');
  return last.result;
}

export async function* toolTurns(
  lane: Lane,
  request: TurnRequest,
  loop: ToolLoop,
): AsyncGenerator<Turn, void, undefined> {
  const { functions, maxTurns = DEFAULT_MAX_TURNS, signal } = loop;
  const wait = signal ? { signal } : {};
  let next: TurnRequest = {
    ...request,
    tools: [
      ...(request.tools ?? request.create?.tools ?? []),
      ...functions.map(({ spec }) => spec),
    ] as Tool[],
  };
  for (let count = 1; ; count += 1) {
    const turn = await lane.start(next, wait);
    yield turn;
    const result = await turn.final(wait);
    // Calls of a turn that broke off are not made: their arguments may be cut.
    if (result.functionCalls.length === 0 || result.outcome !== 'completed') return;
    if (count >= maxTurns) throw new TurnLimitError(result);
    const outputs = await Promise.all(result.functionCalls.map((call) => outputOf(functions, call, signal)));
    signal?.throwIfAborted();
    next = continued(next, outputs);
  }
}

async function outputOf(
  functions: readonly FunctionTool[],
  { callId, name, arguments: args }: FunctionCall,
  signal: AbortSignal | undefined,
): Promise<InputItem> {
  const found = functions.find((candidate) => candidate.name === name);
  if (!found) return callOutput(callId, errorResult(`there is no function ${name}`));
  try {
    return callOutput(callId, await found.call(args, { callId, signal }));
  } catch (error) {
    return callOutput(callId, errorResult(error instanceof Error ? error.message : String(error)));
  }
}

function errorResult(message: string): string {
  return JSON.stringify({ error: message });
}

/** The next request of the loop: the same settings, the results as input. */
function continued(request: TurnRequest, input: readonly InputItem[]): TurnRequest {
  const { turnId: _, from: __, newConversation: ___, fullHistory: ____, ...rest } = request;
  if (!rest.create) return { ...rest, input };
  // A forced tool choice would force the call again and again.
  const { toolChoice: _____, previousResponseId: ______, ...body } = rest.create;
  return { ...rest, create: body as NonNullable<TurnRequest['create']>, input };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`the arguments are no JSON: ${(error as Error).message}`);
  }
}

/**
 * Closes objects that only list properties, as zod drops others anyway, and says whether the schema can be strict:
 * every object closed, every property required.
 */
function closeObjects(schema: unknown): boolean {
  if (Array.isArray(schema)) return schema.map(closeObjects).every(Boolean);
  if (typeof schema !== 'object' || schema === null) return true;
  const node = schema as Record<string, unknown>;
  let strict = true;
  if (node['type'] === 'object') {
    const properties = Object.keys((node['properties'] as object | undefined) ?? {});
    if (node['properties']) node['additionalProperties'] ??= false;
    const required = (node['required'] as string[] | undefined) ?? [];
    strict = node['additionalProperties'] === false && properties.every((name) => required.includes(name));
  }
  for (const key of ['items', 'prefixItems', 'anyOf', 'allOf', 'oneOf']) {
    if (key in node) strict = closeObjects(node[key]) && strict;
  }
  for (const key of ['properties', '$defs']) {
    const children = Object.values((node[key] as object | undefined) ?? {});
    for (const child of children) strict = closeObjects(child) && strict;
  }
  return strict;
}
