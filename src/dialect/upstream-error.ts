import { GatewayError, type Reason, type UpstreamErrorFacts } from '../errors.ts';
import { type ErrorWords, errorObject, readErrorWords } from './error-body.ts';
import { asObject, type Json, own } from './json.ts';
import { provesNotRun, type Road, reasonOfCode, reasonOfStatus, statusOfType } from './reasons.ts';
import { retryAfterMs } from './retry-after.ts';
import type { UpstreamFrame } from './types.ts';

/** A refusal or failure in the upstream's own words. */
export interface UpstreamError {
  readonly road: Road;
  readonly facts: UpstreamErrorFacts;
  readonly retryAfterMs: number | undefined;
}

/** Reads both shapes of an error frame (upstream.md#shapes-of-errors): nested under `error`, or flat. `nowMs` is epoch time. */
export function readErrorFrame(frame: UpstreamFrame, nowMs = 0): UpstreamError {
  const json = frame.json();
  const error = errorObject(json);
  // Spec and SDK put them inside the error, Codex reads them beside it.
  const headers = { ...asObject(own(json, 'headers')), ...asObject(own(error, 'headers')) };
  return upstreamError('frame', readErrorWords(json), { headers, error }, frame.bytes, nowMs);
}

/** Reads `response.error` of a failed response (upstream.md#shapes-of-errors, shape 4). */
export function readFailedResponse(frame: UpstreamFrame, nowMs = 0): UpstreamError {
  const response = asObject(own(frame.json(), 'response')) ?? {};
  const error = asObject(own(response, 'error'));
  // Its status is the response's ("failed"), not HTTP's.
  const words = error === undefined ? {} : readErrorWords(error);
  return upstreamError('failed', words, { error }, frame.bytes, nowMs);
}

/**
 * The parent that a create names cannot be used: unknown, expired, of a store that is not there. Upstreams say so by
 * code, by the parameter, or in words alone (upstream.md#previous-response); it is always said before anything runs. A
 * refusal that is taken for one by mistake costs one full replay.
 */
export function isPreviousResponseNotFound({ facts }: Pick<UpstreamError, 'facts'>): boolean {
  const { code = '', type = '', param = '', message = '' } = facts;
  if ([code, type].some((word) => NOT_FOUND_CODE.test(lettersOf(word)))) return true;
  const status = statusOf(facts);
  if (status !== undefined && !PARENT_STATUSES.has(status)) return false;
  // The code says that it is about something else.
  if ((reasonOfCode(code) ?? reasonOfCode(type)) !== undefined) return false;
  return PARENT_PARAM.test(param) || namesLostParent(message.slice(0, MAX_READ_CHARS));
}

/** As they are left when case, `_`, `-` and blanks are taken away. */
const NOT_FOUND_CODE =
  /^(?:previous)?response(?:id)?notfound$|^previousresponse(?:id)?(?:expired|invalid|missing|unknown|unavailable|deleted)$|^(?:invalid|unknown|expired|missing)previousresponse(?:id)?$/;
/** Those with which a request's own member can be refused. */
const PARENT_STATUSES: ReadonlySet<number> = new Set([400, 404, 410, 422]);
const PARENT_PARAM = /^(?:body\.)?previous_response(?:_id)?$/;
/** What an upstream has to say of a parent it says at once. */
const MAX_READ_CHARS = 4_096;

function lettersOf(word: string): string {
  return word.toLowerCase().replace(/[^a-z]/g, '');
}

/** "previous_response_id … not found", "no such previous response", "Response with id 'resp_1' not found". */
function namesLostParent(message: string): boolean {
  if (LOST_RESPONSE.test(message)) return true;
  for (const { index } of message.matchAll(/previous[_ -]?response/gi)) {
    if (REFUSED_BEFORE.test(message.slice(Math.max(0, index - 80), index))) return true;
    if (REFUSED_AFTER.test(message.slice(index, index + 320))) return true;
  }
  return false;
}

const NOT = "(?:not|n['’]t)";
const REFUSED_BEFORE = new RegExp(
  `invalid|unknown|no such|unsupported|unrecogni[sz]ed|unexpected|${NOT} (?:find|support|accept|know)|unable to|failed to`,
  'i',
);
const REFUSED_AFTER = new RegExp(
  `not found|unknown|invalid|expired|no longer|deleted|removed|evicted|missing|unavailable|${NOT} (?:be |been )?(?:found|exist|used?|support|stored|available|permitted|allowed|known)`,
  'i',
);
/** That no response came is something else: it has to be one that has an id. */
const LOST_RESPONSE = new RegExp(
  [
    `^(?:the |requested )*response (?:with |for )?(?:id\\b|['"\`]?resp_)[^.;\\n]{0,200}(?:not found|deleted|expired|${NOT} (?:be |been )?(?:found|exist))`,
    `^(?:the |requested )*response (?:was |is )?(?:not found|deleted|expired)`,
    `(?:no|${NOT} find|unable to find) (?:a |the |any )*response (?:found )?(?:(?:with|for|by) (?:the |this |that |given |provided )*)?(?:id\\b|['"\`]?resp_)`,
  ].join('|'),
  'is',
);

export function isConnectionLimit({ facts }: UpstreamError): boolean {
  return facts.code === 'websocket_connection_limit_reached';
}

export function isStreamLimit({ facts }: UpstreamError): boolean {
  return facts.code === 'websocket_stream_limit_reached';
}

/** An HTTP link lost one response's stream; the link itself lives. */
export function isStreamLost({ facts }: UpstreamError): boolean {
  return facts.code === 'upstream_stream_lost';
}

/** An HTTP link could not even send the request. */
export function isNotReached({ facts }: UpstreamError): boolean {
  return facts.code === 'upstream_not_reached';
}

/** Whether waiting and sending again is what the upstream asks for. */
export function isRateLimit(error: UpstreamError): boolean {
  const reason = reasonOf(error);
  // A bare 503 is what OpenAI documents for "overloaded" and "slow down".
  const unavailable = reason === 'UPSTREAM_UNAVAILABLE' && error.facts.status === 503 && !isNotReached(error);
  return reason === 'UPSTREAM_RATE_LIMITED' || reason === 'UPSTREAM_OVERLOADED' || unavailable;
}

/** Whether the request was refused before it could run. */
export function isRefused({ facts }: UpstreamError): boolean {
  const status = statusOf(facts);
  return status !== undefined && provesNotRun(status);
}

/** `namedParent`: whether the request named a response to continue; one that did not cannot have lost its chain. */
export function toGatewayError(error: UpstreamError, namedParent = true): GatewayError {
  const { facts } = error;
  const reason =
    reasonOf(error, namedParent) ?? (error.road === 'failed' ? 'RESPONSE_FAILED' : 'UPSTREAM_ERROR');
  return new GatewayError(reason, facts.message ?? 'the upstream gave no message', {
    upstream: facts,
    ...(facts.code === undefined ? {} : { metadata: { upstream_code: facts.code } }),
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
  });
}

function reasonOf({ road, facts }: UpstreamError, namedParent = true): Reason | undefined {
  if (namedParent && isPreviousResponseNotFound({ facts })) return 'CHAIN_LOST';
  return reasonOfWords(facts, statusOf(facts), road);
}

/** Code before type before status: the status of a relay is often its own. */
export function reasonOfWords(
  { code, type }: ErrorWords,
  status: number | undefined,
  road: Road,
): Reason | undefined {
  const named = reasonOfCode(code ?? '') ?? reasonOfCode(type ?? '');
  return named ?? (status === undefined ? undefined : reasonOfStatus(status, road));
}

function statusOf({ status, code, type }: UpstreamErrorFacts): number | undefined {
  return status ?? statusOfType(type ?? '') ?? statusOfType(code ?? '');
}

function upstreamError(
  road: Road,
  words: ErrorWords,
  { headers, error }: { readonly headers?: Json; readonly error: Json | undefined },
  json: Uint8Array,
  nowMs: number,
): UpstreamError {
  return {
    road,
    facts: { json, ...words },
    retryAfterMs: retryAfterMs({ headers, error, message: words.message }, nowMs),
  };
}
