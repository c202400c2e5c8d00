import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { DurationSchema } from '@bufbuild/protobuf/wkt';
import { type ContentPart, ContentPartSchema } from './gen/responses/gateway/v1/content_pb.ts';
import { type CreateBody, CreateBodySchema } from './gen/responses/gateway/v1/create_pb.ts';
import { type InputItem, InputItemSchema } from './gen/responses/gateway/v1/items_pb.ts';
import type { CountBodySchema } from './gen/responses/gateway/v1/resource_pb.ts';
import { InputMode, type StartTurn, StartTurnSchema } from './gen/responses/gateway/v1/session_pb.ts';
import { type TextFormat, TextFormatSchema } from './gen/responses/gateway/v1/settings_pb.ts';
import {
  type Tool,
  type ToolChoice,
  ToolChoiceSchema,
  ToolSchema,
} from './gen/responses/gateway/v1/tools_pb.ts';
import { isSchema, jsonSchemaOf, type Schema } from './schema.ts';
import { currentTraceContext } from './trace.ts';

/** An object as the Responses API has it. */
export type Json = Readonly<Record<string, unknown>>;
/** A string is one user message; objects are input items as the Responses API has them. */
export type Input = string | readonly (InputItem | Json)[];

/**
 * Says what a turn runs. An empty one continues the lane with no new input. The options are those of the Responses API;
 * `extra` holds members of its body that have no option here, `create` the same as the generated message. Options are
 * put over `create`.
 */
export interface TurnRequest {
  /** What is new since the lane's last response; everything, with `fullHistory`. */
  readonly input?: Input;
  /** Default: the session's. */
  readonly model?: string;
  /** System message. Not inherited from the lane's last turn: give it with each one. */
  readonly instructions?: string;
  /** Tools that the model may call, generated or as the Responses API has them. Not inherited either. */
  readonly tools?: readonly (Tool | Json)[];
  /** Whether the upstream keeps the response. Default: the upstream's. */
  readonly store?: boolean;
  /** Of reasoning models: `minimal`, `low`, `medium`, `high` … */
  readonly effort?: string;
  /** Summaries of the reasoning: `auto`, `concise` or `detailed`. */
  readonly reasoningSummary?: string;
  readonly temperature?: number;
  readonly topP?: number;
  readonly maxOutputTokens?: number;
  /** A Standard Schema (zod's, for instance) for `parse`, or a format of the Responses API. */
  readonly textFormat?: Schema | Json;
  /** `low`, `medium` or `high`. */
  readonly verbosity?: string;
  /** `auto`, `none`, `required`, the name of a function, or a choice of the Responses API. */
  readonly toolChoice?: string | Json;
  readonly parallelToolCalls?: boolean;
  /** For instance `reasoning.encrypted_content`. */
  readonly include?: readonly string[];
  /** Kept with the response; at most 16. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Requests with the same key share the prompt cache. */
  readonly cacheKey?: string;
  readonly safetyIdentifier?: string;
  readonly serviceTier?: string;
  readonly truncation?: string;
  /** Members of the request's body that have no option here. */
  readonly extra?: Json;
  readonly create?: MessageInitShape<typeof CreateBodySchema>;
  /** Continues from this response id, of whichever lane: a fork. */
  readonly from?: string;
  /** Starts from nothing on this lane. */
  readonly newConversation?: boolean;
  /** `input` is the whole conversation, and the gateway works out what is new. */
  readonly fullHistory?: boolean;
  /** From acceptance to outcome, kept by the gateway. Default: the gateway's, usually none. */
  readonly timeoutMs?: number;
  /** Lets the gateway wait and send again when the upstream refuses for its rate limit. */
  readonly waitOnRateLimit?: boolean;
  /** Unique in the session. Default: chosen by the client. */
  readonly turnId?: string;
}

/** One message: a text, or texts, images and files in their order. */
export function message(
  role: 'user' | 'assistant' | 'system' | 'developer' | (string & {}),
  content: string | readonly (string | ContentPart)[],
): InputItem {
  if (typeof content === 'string') {
    return create(InputItemSchema, { kind: { case: 'message', value: { role, text: content } } });
  }
  const parts = content.map((part) =>
    typeof part === 'string'
      ? create(ContentPartSchema, { kind: { case: 'inputText', value: { text: part } } })
      : part,
  );
  return create(InputItemSchema, { kind: { case: 'message', value: { role, content: parts } } });
}

/** An image for {@link message}: by its URL, its bytes, or the id of an uploaded file. */
export function image(given: {
  readonly url?: string;
  readonly data?: Uint8Array;
  /** Of `data`. Default: `image/png`. */
  readonly mime?: string;
  readonly fileId?: string;
  readonly detail?: string;
}): ContentPart {
  const imageUrl = given.data ? dataUrl(given.data, given.mime ?? 'image/png') : given.url;
  const value = { ...defined({ imageUrl, fileId: given.fileId, detail: given.detail }) };
  return create(ContentPartSchema, { kind: { case: 'inputImage', value } });
}

/** A file for {@link message}: by its URL, its bytes (with a name), or the id of an uploaded file. */
export function file(given: {
  readonly url?: string;
  readonly data?: Uint8Array;
  /** Of `data`. Default: `application/pdf`. */
  readonly mime?: string;
  readonly filename?: string;
  readonly fileId?: string;
}): ContentPart {
  const fileData = given.data && dataUrl(given.data, given.mime ?? 'application/pdf');
  const { url: fileUrl, filename, fileId } = given;
  return create(ContentPartSchema, {
    kind: { case: 'inputFile', value: { ...defined({ fileUrl, fileData, filename, fileId }) } },
  });
}

/** The result of a function call. */
export function callOutput(callId: string, output: string): InputItem {
  return create(InputItemSchema, { kind: { case: 'functionCallOutput', value: { callId, output } } });
}

/** An input item as the upstream's JSON, for kinds that this client does not know. */
export function jsonItem(json: string | Uint8Array | Json): InputItem {
  return create(InputItemSchema, {
    kind: { case: 'json', value: json instanceof Uint8Array ? json : bytesOf(json) },
  });
}

export function inputItems(input: Input): InputItem[] {
  if (typeof input === 'string') return [message('user', input)];
  return input.map((item) => (isMessage<InputItem>(item) ? item : jsonItem(item)));
}

export function startTurn(request: TurnRequest, laneId: string, turnId: string): StartTurn {
  const start = create(StartTurnSchema, {
    laneId,
    turnId,
    create: bodyOf(request),
    waitOnRateLimit: request.waitOnRateLimit ?? false,
  });
  const traceContext = currentTraceContext();
  if (traceContext) start.traceContext = traceContext;
  if (request.from !== undefined) start.chain = { case: 'previousResponseId', value: request.from };
  else if (request.newConversation)
    start.chain = create(StartTurnSchema, { chain: { case: 'newConversation', value: {} } }).chain;
  if (request.fullHistory) start.inputMode = InputMode.FULL_HISTORY;
  if (request.timeoutMs !== undefined) start.timeout = durationOf(request.timeoutMs);
  return start;
}

/** The body of a turn without a session. */
export function turnBody(request: TurnRequest): CreateBody {
  const body = bodyOf(request);
  if (request.from !== undefined) body.previousResponseId = request.from;
  return body;
}

/** The same request, to be counted: what counting does not know is left out. */
export function countBody(request: TurnRequest): MessageInitShape<typeof CountBodySchema> {
  const { model, input, instructions, previousResponseId, conversationId, conversation, ...rest } =
    turnBody(request);
  const { tools, toolChoice, parallelToolCalls, reasoning, text, truncation } = rest;
  return {
    input,
    tools,
    ...defined({ model, instructions, previousResponseId, conversationId, conversation }),
    ...defined({ toolChoice, parallelToolCalls, reasoning, text, truncation }),
  };
}

export function warmUp(request: TurnRequest): TurnRequest {
  return {
    ...request,
    create: { ...request.create, generate: false } as MessageInitShape<typeof CreateBodySchema>,
  };
}

function bodyOf(request: TurnRequest): CreateBody {
  // A copy, so that neither the caller's later changes nor ours reach the other.
  const body = create(CreateBodySchema, { ...request.create });
  Object.assign(
    body,
    defined({
      model: request.model,
      instructions: request.instructions,
      store: request.store,
      temperature: request.temperature,
      topP: request.topP,
      maxOutputTokens: request.maxOutputTokens,
      parallelToolCalls: request.parallelToolCalls,
      promptCacheKey: request.cacheKey,
      safetyIdentifier: request.safetyIdentifier,
      serviceTier: request.serviceTier,
      truncation: request.truncation,
      include: request.include && [...request.include],
      metadata: request.metadata && { ...request.metadata },
    }),
  );
  if (request.input !== undefined) body.input = inputItems(request.input);
  if (request.tools !== undefined) {
    body.tools = request.tools.map((one) =>
      isMessage<Tool>(one) ? one : create(ToolSchema, { kind: { case: 'json', value: bytesOf(one) } }),
    );
  }
  if (request.effort !== undefined || request.reasoningSummary !== undefined) {
    const given = defined({ effort: request.effort, summary: request.reasoningSummary });
    body.reasoning = create(CreateBodySchema, { reasoning: { ...body.reasoning, ...given } })
      .reasoning as NonNullable<CreateBody['reasoning']>;
  }
  if (request.verbosity !== undefined || request.textFormat !== undefined) {
    const format = request.textFormat && formatOf(request.textFormat);
    const given = defined({ verbosity: request.verbosity, format });
    body.text = create(CreateBodySchema, { text: { ...body.text, ...given } }).text as NonNullable<
      CreateBody['text']
    >;
  }
  if (request.toolChoice !== undefined) body.toolChoice = choiceOf(request.toolChoice);
  if (request.extra !== undefined) {
    const before =
      body.extraJson.length === 0 ? {} : (JSON.parse(new TextDecoder().decode(body.extraJson)) as Json);
    body.extraJson = bytesOf({ ...before, ...request.extra });
  }
  return body;
}

export function durationOf(ms: number) {
  return create(DurationSchema, {
    seconds: BigInt(Math.floor(ms / 1000)),
    nanos: Math.floor((ms % 1000) * 1e6),
  });
}

function formatOf(format: Schema | Json): TextFormat {
  if (!isSchema(format)) return create(TextFormatSchema, { kind: { case: 'json', value: bytesOf(format) } });
  const { json, strict } = jsonSchemaOf(format);
  if (json['type'] !== 'object') throw new TypeError('textFormat: the schema is not one of an object');
  const value = { name: 'answer', schema: bytesOf(json), strict };
  return create(TextFormatSchema, { kind: { case: 'jsonSchema', value } });
}

function choiceOf(choice: string | Json): ToolChoice {
  if (typeof choice !== 'string')
    return create(ToolChoiceSchema, { kind: { case: 'json', value: bytesOf(choice) } });
  const isMode = choice === 'auto' || choice === 'none' || choice === 'required';
  return create(ToolChoiceSchema, {
    kind: isMode ? { case: 'mode', value: choice } : { case: 'function', value: { name: choice } },
  });
}

function isMessage<M>(value: object): value is M & object {
  return '$typeName' in value;
}

function defined<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}

function dataUrl(data: Uint8Array, mime: string): string {
  return `data:${mime};base64,${Buffer.from(data).toString('base64')}`;
}

function bytesOf(json: string | Json): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(typeof json === 'string' ? json : JSON.stringify(json));
}
