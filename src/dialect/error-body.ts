import { asObject, type Json, numberOf, optional, own, textOf } from './json.ts';

/** What an error says of itself, however it is written. */
export interface ErrorWords {
  readonly status?: number;
  readonly type?: string;
  readonly code?: string;
  readonly message?: string;
  readonly param?: string;
}

/**
 * Reads the body of a refused HTTP call or an error frame: OpenAI's `{error:{…}}`, the flat event, `{error:"text"}`,
 * FastAPI's `{detail}` (text, list or object), an object in a `message` of its own.
 */
export function readErrorWords(outer: Json): ErrorWords {
  const body = errorObject(outer);
  const type = textOf(own(body, 'type'));
  const said = own(body, 'code');
  // Some number their errors by the HTTP status, as a number or in a string.
  const number = numberOf(said);
  const code = textOf(said) ?? (number === undefined ? undefined : String(number));
  const status = statusIn(outer) ?? statusIn(body) ?? (isStatus(number) ? number : undefined);
  return {
    ...optional('status', status),
    // Of a flat event the type is the event's.
    ...optional('type', type === 'error' ? undefined : type),
    ...optional('code', code),
    ...optional('message', messageIn(body) ?? textOf(own(outer, 'error'))),
    ...optional('param', textOf(own(body, 'param'))),
  };
}

/** The object that holds the words: `error`, `detail`, `detail.error`, the first of `errors`, or the outer one. */
export function errorObject(outer: Json): Json {
  const detail = asObject(own(outer, 'detail'));
  const errors = own(outer, 'errors');
  const first = Array.isArray(errors) ? asObject(errors[0]) : undefined;
  return asObject(own(outer, 'error')) ?? asObject(own(detail, 'error')) ?? detail ?? first ?? outer;
}

function messageIn(body: Json): string | undefined {
  const message = own(body, 'message');
  return (
    textOf(message) ??
    textOf(own(asObject(message), 'message')) ??
    textOf(own(body, 'detail')) ??
    listed(own(body, 'detail')) ??
    textOf(own(body, 'msg'))
  );
}

/** FastAPI's validation errors: `[{loc, msg, type}]`, told as `input.0.id: Field required`. */
function listed(detail: unknown): string | undefined {
  if (!Array.isArray(detail)) return undefined;
  const said = detail.flatMap((each: unknown) => {
    const problem = asObject(each);
    const msg = textOf(own(problem, 'msg'));
    const where = pathOf(own(problem, 'loc'));
    return msg === undefined ? [] : where === '' ? msg : `${where}: ${msg}`;
  });
  return said.length === 0 ? undefined : said.join('; ');
}

/** Every one of them begins with the part of the request that it is about. */
function pathOf(loc: unknown): string {
  if (!Array.isArray(loc)) return '';
  const steps = loc.filter((step: unknown) => typeof step === 'string' || typeof step === 'number');
  return (steps[0] === 'body' ? steps.slice(1) : steps).join('.');
}

function statusIn(object: Json): number | undefined {
  const status = numberOf(own(object, 'status')) ?? numberOf(own(object, 'status_code'));
  return isStatus(status) ? status : undefined;
}

function isStatus(value: number | undefined): value is number {
  return value !== undefined && Number.isInteger(value) && value >= 400 && value < 600;
}
