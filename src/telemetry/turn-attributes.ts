import type { Attributes } from '@opentelemetry/api';
import type { Fact, LinkRoute, TurnRecord } from '../core/types.ts';
import { ATTR, type GenAiSemconv, OPERATION_CHAT, providerName } from './genai-names.ts';
import { errorType } from './labels.ts';
import { OWN, OWN_LABEL_PREFIX } from './own-names.ts';
import type { TurnSplit } from './turn-split.ts';
import type { SessionStart } from './types.ts';

/** What is known of a turn before it is sent. */
export function acceptedAttributes(
  fact: Extract<Fact, { kind: 'turnAccepted' }>,
  sessionId: string,
  labels: Attributes,
): Attributes {
  const attributes: Attributes = {
    [ATTR.operation]: OPERATION_CHAT,
    [ATTR.requestStream]: true,
    [ATTR.apiType]: 'responses',
    [ATTR.conversationId]: conversationId(sessionId, fact.laneId),
    [OWN.turnId]: fact.turnId,
    ...labels,
  };
  if (fact.model !== undefined) attributes[ATTR.requestModel] = fact.model;
  if (fact.laneId !== '') attributes[OWN.laneId] = fact.laneId;
  return attributes;
}

/** A lane is the conversation: real, and the same over all its turns. */
function conversationId(sessionId: string, laneId: string): string {
  return laneId === '' ? sessionId : `${sessionId}/${laneId}`;
}

/** What its end tells. */
export function endedAttributes(
  record: TurnRecord,
  split: TurnSplit,
  route: LinkRoute | undefined,
  semconv: GenAiSemconv,
): Attributes {
  const { usage, failed } = record;
  const attributes: Attributes = {
    ...(route !== undefined && routeAttributes(route)),
    [OWN.outcome]: record.outcome,
    [OWN.queueDuration]: split.queueSeconds,
    [OWN.upstreamDuration]: split.upstreamSeconds,
  };
  if (split.addedUpSeconds !== undefined) attributes[OWN.addedUp] = split.addedUpSeconds;
  if (split.addedDownSeconds !== undefined) attributes[OWN.addedDown] = split.addedDownSeconds;
  if (record.responseId !== undefined) attributes[ATTR.responseId] = record.responseId;
  if (record.responseModel !== undefined) attributes[ATTR.responseModel] = record.responseModel;
  if (record.serviceTier !== undefined) attributes[ATTR.serviceTier] = record.serviceTier;
  if (record.responseId !== undefined || failed !== undefined) {
    // A reason that was due and never came is told as `error`, not left out.
    attributes[ATTR.finishReasons] = [record.finishReason ?? 'error'];
  }
  if (split.firstOutputSeconds !== undefined) attributes[ATTR.timeToFirstChunk] = split.firstOutputSeconds;
  // What most turns have none of is left out: an attribute costs at every hop to the collector's disk.
  if (split.gatewaySeconds > 0) attributes[OWN.rebuildDuration] = split.gatewaySeconds;
  if (record.toolCalls > 0) attributes[OWN.toolCalls] = record.toolCalls;
  if (record.sends > 1) attributes[OWN.sends] = record.sends;
  if (record.replays > 0) attributes[OWN.replays] = record.replays;
  if (record.warmUp) attributes[OWN.warmUp] = true;
  if (usage !== undefined) {
    attributes[ATTR.inputTokens] = usage.inputTokens;
    attributes[ATTR.outputTokens] = usage.outputTokens;
    attributes[ATTR.cachedInputTokens] = usage.cachedInputTokens;
    attributes[ATTR.reasoningTokens] = usage.reasoningTokens;
    if (usage.cacheWriteTokens > 0) {
      if (semconv !== '0.1.0') attributes[ATTR.cacheCreationTokens] = usage.cacheWriteTokens;
      if (semconv !== '1.41') attributes[ATTR.cacheWriteTokens] = usage.cacheWriteTokens;
    }
  }
  if (record.cost !== undefined) {
    // As text: a decimal is exact, and a floating-point number is not.
    attributes[OWN.cost] = record.cost.amount;
    attributes[OWN.costCurrency] = record.cost.currency;
  }
  if (failed !== undefined) {
    attributes['error.type'] = errorType(failed.error.reason, failed.error.upstream?.code);
    attributes[OWN.replay] = failed.replay;
    attributes[OWN.phase] = failed.phase;
  }
  return attributes;
}

export function routeAttributes(route: LinkRoute): Attributes {
  return {
    [ATTR.provider]: providerName(route.provider),
    'server.address': route.serverAddress,
    'server.port': route.serverPort,
  };
}

/** The client's own labels, as its `Open` gave them: bounded there in number and length. */
export function labelAttributes(start: SessionStart): Attributes {
  const attributes: Attributes = {};
  for (const [name, value] of start.labels ?? []) attributes[`${OWN_LABEL_PREFIX}${name}`] = value;
  return attributes;
}
