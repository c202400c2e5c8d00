import { create } from '@bufbuild/protobuf';
import { type Tool, ToolSchema } from './gen/responses/gateway/v1/tools_pb.ts';
import { jsonSchemaOf, parseWith, type Schema } from './schema.ts';

export interface ToolContext {
  readonly callId: string;
  /** Aborted when the loop ends or the call has taken too long. */
  readonly signal: AbortSignal;
}

/** A function that the model may call. Make it with {@link tool}. */
export interface FunctionTool {
  readonly name: string;
  readonly spec: Tool;
  /** @throws whatever goes wrong: it becomes the call's error result. */
  readonly call: (args: string, context: ToolContext) => Promise<string>;
}

/**
 * Makes a tool of a function. Its arguments are checked with `input`, a Standard Schema of an object (zod's, for
 * instance), whose JSON Schema the model is given. Results are written as JSON, strings as they are. An error goes to the
 * model as the result `{"error": …}`.
 * @throws if `input` has no JSON Schema.
 */
export function tool<Output extends object>(definition: {
  readonly name: string;
  readonly description?: string;
  readonly input: Schema<Output>;
  readonly run: (input: Output, context: ToolContext) => unknown;
}): FunctionTool {
  const { name, description, input, run } = definition;
  const { json, strict } = jsonSchemaOf(input);
  const value = {
    name,
    ...(description !== undefined && { description }),
    parameters: new TextEncoder().encode(JSON.stringify(json)),
    strict,
  };
  return {
    name,
    spec: create(ToolSchema, { kind: { case: 'function', value } }),
    async call(args, context) {
      const output: unknown = await run(await parseWith(input, args), context);
      return typeof output === 'string' ? output : (JSON.stringify(output) ?? 'null');
    },
  };
}
