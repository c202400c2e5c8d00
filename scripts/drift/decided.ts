/** Closed sets of strings of the upstream's by which the code decides something: a new one has to be looked at. */
import { endingOf } from '../../src/dialect/events.ts';
import { reasonOfCode } from '../../src/dialect/reasons.ts';
import type { Gap } from './compare.ts';
import type { ObjectShape, Shape } from './shape.ts';

interface Decided {
  /** The upstream's type. */
  readonly type: string;
  /** Its member; empty: the type itself. */
  readonly member: string;
  /** What knows the values. */
  readonly knows: (value: string) => boolean;
  /** Where they are decided by. */
  readonly where: string;
}

const among = (...values: readonly string[]): ((value: string) => boolean) => {
  const known = new Set(values);
  return (value) => known.has(value);
};

/** Failures of a response that mean no more than that it failed: RESPONSE_FAILED, by hand or again. */
const PLAIN_FAILURES = among(
  'server_error',
  'bio_policy',
  'cyber_policy',
  'misalignment_policy_violation',
  'vector_store_timeout',
  'invalid_image',
  'invalid_image_format',
  'invalid_base64_image',
  'invalid_image_url',
  'image_too_large',
  'image_too_small',
  'image_parse_error',
  'image_content_policy_violation',
  'invalid_image_mode',
  'image_file_too_large',
  'unsupported_image_media_type',
  'empty_image_file',
  'failed_to_download_image',
  'image_file_not_found',
  'data_residency_mismatch',
);

const DECIDED: readonly Decided[] = [
  {
    type: 'ResponseStatus',
    member: '',
    knows: among('completed', 'incomplete', 'failed', 'cancelled', 'in_progress', 'queued'),
    where: 'dialect/events.ts, background responses',
  },
  {
    type: 'ResponseError',
    member: 'code',
    knows: (code) => reasonOfCode(code) !== undefined || PLAIN_FAILURES(code),
    where: 'dialect/reasons.ts',
  },
  {
    type: 'Response.IncompleteDetails',
    member: 'reason',
    knows: among('max_output_tokens', 'content_filter', 'max_messages', 'steered'),
    where: 'steering, calls that were cut off',
  },
  {
    type: 'ResponseSteerErrorCode',
    member: '',
    knows: among(
      'response_not_found',
      'invalid_input',
      'steering_not_supported',
      'too_many_pending_steers',
      'response_already_completed',
      'response_not_active',
      'successor_creation_failed',
    ),
    where: 'core, what becomes of a steer',
  },
  {
    type: 'ResponseSteerPendingReason',
    member: '',
    knows: among('waiting_for_required_input'),
    where: 'core, a steer that waits',
  },
  {
    type: 'ResponsesClientEvent.ResponseCreate.BackgroundOptions',
    member: 'completion_window',
    knows: among('soonest', '2h', '8h'),
    where: 'windows that cannot be streamed',
  },
  {
    type: 'InputItems.InputItemListParams',
    member: 'order',
    knows: among('asc', 'desc'),
    where: 'grpc/resource-call.ts refuses others',
  },
  {
    type: 'EasyInputMessage',
    member: 'role',
    knows: among('user', 'assistant', 'system', 'developer'),
    where: 'core/same-item.ts, what is output and what is input',
  },
  {
    type: 'ResponseOutputMessage',
    member: 'status',
    knows: among('in_progress', 'completed', 'incomplete'),
    where: 'core, items that were cut off',
  },
];

const BETA_DECIDED: readonly Decided[] = [
  {
    type: 'BetaResponseInjectFailedEvent.Error',
    member: 'code',
    knows: among('response_already_completed', 'response_not_found'),
    where: 'core/inject.ts',
  },
  { ...decided('ResponseStatus'), type: 'BetaResponseStatus' },
];

/** Literals that no code knows, of the types above that a source has. */
export function undecided(read: (name: string) => Shape, source: 'openai' | 'beta'): Gap[] {
  const sets = source === 'openai' ? DECIDED : BETA_DECIDED;
  return sets.flatMap(({ type, member, knows, where }) => {
    const shape = member === '' ? read(type) : memberOf(read(type), member, type);
    if (shape.literals.length === 0) throw new Error(`${type}.${member} has no literals any more`);
    const unknown = shape.literals.filter((value) => !knows(value));
    return unknown.map((value) => ({ message: where, field: value, missing: 'decision', upstream: type }));
  });
}

/** Whether an event that carries a response ends it, goes on with it, or is known by nobody. */
export function terminalGap(type: string, object: ObjectShape): Gap | undefined {
  if (!object.members.has('response') || GOES_ON(type) || endingOf(type, undefined) !== undefined)
    return undefined;
  return { message: 'dialect/events.ts', field: type, missing: 'decision', upstream: object.name };
}

const GOES_ON = among('response.created', 'response.in_progress', 'response.queued');

function memberOf(shape: Shape, member: string, type: string): Shape {
  const found = shape.objects.map(({ members }) => members.get(member)).find((each) => each !== undefined);
  if (found === undefined) throw new Error(`${type} has no ${member} any more`);
  return found.shape();
}

function decided(type: string): Decided {
  const found = DECIDED.find((each) => each.type === type);
  if (found === undefined) throw new Error(`nothing decides by ${type}`);
  return found;
}
