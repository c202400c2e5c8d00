import type { Attributes } from '@opentelemetry/api';
import type { StartTurn } from '../core/types.ts';
import { ATTR, type GenAiSemconv } from './genai-names.ts';

/** What a turn asks for, as raw JSON: it is read when its span is exported. */
export interface TurnRequest {
  readonly turnId: string;
  readonly maxOutputTokens: string | undefined;
  readonly temperature: string | undefined;
  readonly topP: string | undefined;
  readonly serviceTier: string | undefined;
  readonly reasoning: string | undefined;
  readonly text: string | undefined;
  readonly prompt: string | undefined;
  /** `lane`: of the lane's last response when it is sent. */
  readonly previous:
    | { readonly kind: 'none' | 'lane' }
    | { readonly kind: 'named'; readonly responseId: string };
  /** Its input holds a summary in place of what was said before. */
  readonly compacted: boolean;
}

export function turnRequest({ turnId, create, chain, inputMode }: StartTurn): TurnRequest {
  const { fields } = create;
  return {
    turnId,
    maxOutputTokens: fields.get('max_output_tokens'),
    temperature: fields.get('temperature'),
    topP: fields.get('top_p'),
    serviceTier: fields.get('service_tier'),
    reasoning: fields.get('reasoning'),
    text: fields.get('text'),
    prompt: fields.get('prompt'),
    previous: previousOf(chain, create.previousResponseId, inputMode),
    compacted: create.input.some((item) => item.startsWith(COMPACTION)),
  };
}

const COMPACTION = '{"type":"compaction"';

function previousOf(
  chain: StartTurn['chain'],
  raw: string | undefined,
  inputMode: StartTurn['inputMode'],
): TurnRequest['previous'] {
  if (chain.kind === 'from') return { kind: 'named', responseId: chain.responseId };
  if (raw !== undefined) return { kind: 'named', responseId: raw };
  // A full history goes up as a difference or as it is: what it continues from is not known here.
  return { kind: chain.kind === 'automatic' && inputMode === 'incremental' ? 'lane' : 'none' };
}

/** Attributes of a request; `lastResponseId` is that of the lane when the turn was sent. */
export function requestAttributes(
  request: TurnRequest,
  lastResponseId: string | undefined,
  semconv: GenAiSemconv,
): Attributes {
  const attributes: Attributes = {};
  setNumber(attributes, ATTR.maxTokens, request.maxOutputTokens);
  setNumber(attributes, ATTR.temperature, request.temperature);
  setNumber(attributes, ATTR.topP, request.topP);
  const tier = read(request.serviceTier);
  if (typeof tier === 'string' && tier !== 'auto') attributes[ATTR.requestServiceTier] = tier;
  const prompt = object(request.prompt);
  setText(attributes, ATTR.promptName, prompt['id']);
  setText(attributes, ATTR.outputType, OUTPUT_TYPES[String(object(object(request.text)['format'])['type'])]);
  if (semconv === '1.41') return attributes;
  setText(attributes, ATTR.promptVersion, prompt['version']);
  setText(attributes, ATTR.reasoningLevel, object(request.reasoning)['effort']);
  if (request.compacted) attributes[ATTR.compacted] = true;
  const { previous } = request;
  setText(
    attributes,
    ATTR.previousResponseId,
    previous.kind === 'named' ? previous.responseId : lastResponseId,
  );
  return attributes;
}

/** The conventions' name for the formats of `text.format`. */
const OUTPUT_TYPES: Readonly<Record<string, string>> = {
  text: 'text',
  json_object: 'json',
  json_schema: 'json',
};

function setNumber(attributes: Attributes, name: string, json: string | undefined): void {
  const value = json === undefined ? Number.NaN : Number(json);
  if (Number.isFinite(value)) attributes[name] = value;
}

function setText(attributes: Attributes, name: string, value: unknown): void {
  if (typeof value === 'string' && value !== '') attributes[name] = value;
}

function object(value: unknown): Readonly<Record<string, unknown>> {
  const parsed = typeof value === 'string' ? read(value) : value;
  return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : {};
}

/** The translator has checked typed fields; raw ones may hold anything. */
function read(json: string | undefined): unknown {
  if (json === undefined) return undefined;
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
