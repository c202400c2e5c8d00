/**
 * Names of the GenAI semantic conventions. They left the main conventions after v1.41 for a repository of their own
 * (https://github.com/open-telemetry/semantic-conventions-genai) and are unstable; the npm package marks its copies
 * deprecated, so the project keeps its own list. A test holds it against the package, as far as that goes.
 */
export const GENAI_VERSIONS = ['0.1.0', '1.41'] as const;
export type GenAiVersion = (typeof GENAI_VERSIONS)[number];
/** `both`: what has two names gets both. */
export type GenAiSemconv = GenAiVersion | 'both';
export const DEFAULT_GENAI_SEMCONV: GenAiSemconv = '0.1.0';

const SCHEMA_URLS: Readonly<Record<GenAiVersion, string>> = {
  '0.1.0': 'https://opentelemetry.io/schemas/gen-ai/0.1.0',
  '1.41': 'https://opentelemetry.io/schemas/1.41.0',
};

/** Of the newer one, where there are both. */
export function schemaUrl(semconv: GenAiSemconv): string {
  return SCHEMA_URLS[semconv === '1.41' ? '1.41' : '0.1.0'];
}

/** Whether something that only one version has is emitted; undefined: all have it. */
export function isChosen(version: GenAiVersion | undefined, semconv: GenAiSemconv): boolean {
  return version === undefined || semconv === 'both' || semconv === version;
}

export const ATTR = {
  operation: 'gen_ai.operation.name',
  provider: 'gen_ai.provider.name',
  requestModel: 'gen_ai.request.model',
  requestStream: 'gen_ai.request.stream',
  maxTokens: 'gen_ai.request.max_tokens',
  temperature: 'gen_ai.request.temperature',
  topP: 'gen_ai.request.top_p',
  reasoningLevel: 'gen_ai.request.reasoning.level',
  previousResponseId: 'gen_ai.request.previous_response.id',
  promptName: 'gen_ai.prompt.name',
  promptVersion: 'gen_ai.prompt.version',
  outputType: 'gen_ai.output.type',
  responseModel: 'gen_ai.response.model',
  responseId: 'gen_ai.response.id',
  finishReasons: 'gen_ai.response.finish_reasons',
  timeToFirstChunk: 'gen_ai.response.time_to_first_chunk',
  conversationId: 'gen_ai.conversation.id',
  compacted: 'gen_ai.conversation.compacted',
  inputTokens: 'gen_ai.usage.input_tokens',
  outputTokens: 'gen_ai.usage.output_tokens',
  cachedInputTokens: 'gen_ai.usage.cache_read.input_tokens',
  cacheCreationTokens: 'gen_ai.usage.cache_creation.input_tokens',
  cacheWriteTokens: 'gen_ai.usage.cache_write.input_tokens',
  reasoningTokens: 'gen_ai.usage.reasoning.output_tokens',
  tokenType: 'gen_ai.token.type',
  tokenModality: 'gen_ai.token.modality',
  toolName: 'gen_ai.tool.name',
  toolCallId: 'gen_ai.tool.call.id',
  systemInstructions: 'gen_ai.system_instructions',
  inputMessages: 'gen_ai.input.messages',
  outputMessages: 'gen_ai.output.messages',
  apiType: 'openai.api.type',
  requestServiceTier: 'openai.request.service_tier',
  serviceTier: 'openai.response.service_tier',
} as const;

export type GenAiAttribute = (typeof ATTR)[keyof typeof ATTR];

/** Attributes that not both versions have. */
const ATTRIBUTE_VERSIONS: Readonly<Partial<Record<GenAiAttribute, GenAiVersion>>> = {
  [ATTR.reasoningLevel]: '0.1.0',
  [ATTR.previousResponseId]: '0.1.0',
  [ATTR.promptVersion]: '0.1.0',
  [ATTR.compacted]: '0.1.0',
  [ATTR.cacheWriteTokens]: '0.1.0',
  [ATTR.tokenModality]: '0.1.0',
  [ATTR.cacheCreationTokens]: '1.41',
};

export function attributeVersion(name: GenAiAttribute): GenAiVersion | undefined {
  return ATTRIBUTE_VERSIONS[name];
}

/** The Responses API has no operation name of its own; "Create Response" is listed as an inference. */
export const OPERATION_CHAT = 'chat';

/** Upstreams do not tell text from images in what they bill. */
export const MODALITY_UNKNOWN = 'unknown';

export const METRIC = {
  tokenUsage: 'gen_ai.client.token.usage',
  operationDuration: 'gen_ai.client.operation.duration',
  operationTimeToFirstChunk: 'gen_ai.client.operation.time_to_first_chunk',
  operationTimePerOutputChunk: 'gen_ai.client.operation.time_per_output_chunk',
  duration: 'gen_ai.client.inference.duration',
  timeToFirstChunk: 'gen_ai.client.inference.time_to_first_chunk',
  timePerOutputChunk: 'gen_ai.client.inference.time_per_output_chunk',
  inputTokens: 'gen_ai.client.inference.operation.input_tokens',
  outputTokens: 'gen_ai.client.inference.operation.output_tokens',
  inputUsage: 'gen_ai.client.inference.usage.input_tokens',
  outputUsage: 'gen_ai.client.inference.usage.output_tokens',
  cacheReadUsage: 'gen_ai.client.inference.usage.cache_read.input_tokens',
  cacheWriteUsage: 'gen_ai.client.inference.usage.cache_write.input_tokens',
  reasoningUsage: 'gen_ai.client.inference.usage.reasoning.output_tokens',
} as const;

/** The log record of a turn that failed, by version. */
export const EXCEPTION_EVENT: Readonly<Record<GenAiVersion, string>> = {
  '0.1.0': 'gen_ai.client.inference.exception',
  '1.41': 'gen_ai.client.operation.exception',
};

/**
 * Well-known provider names of the conventions by the gateway's own; a name that is not here (vLLM, Ollama, a
 * company's own) is reported as it is: the set is open by its definition.
 */
const PROVIDERS: Readonly<Record<string, string>> = {
  openai: 'openai',
  azure: 'azure.ai.openai',
  xai: 'x_ai',
  bedrock: 'aws.bedrock',
  groq: 'groq',
  mistral: 'mistral_ai',
  deepseek: 'deepseek',
};

export function providerName(provider: string): string {
  return Object.hasOwn(PROVIDERS, provider) ? (PROVIDERS[provider] ?? provider) : provider;
}
