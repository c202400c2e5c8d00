/** When two items of a conversation read the same to the model. */
import { asObject, type Json, own } from '../dialect/json.ts';

export interface Item {
  readonly kind: string;
  /** Undefined also where it is empty. */
  readonly id: string | undefined;
  readonly fields: Json;
}

/** Members that only say how the item came about. */
const SILENT: ReadonlySet<string> = new Set(['id', 'status', 'type', 'created_by', 'agent']);

/** What an upstream says of an item, or of a part of a message, and clients leave out when they tell it again. */
const OPTIONAL: ReadonlySet<string> = new Set(['phase', 'namespace', 'caller']);
const OPTIONAL_OF_PART: ReadonlySet<string> = new Set(['annotations', 'logprobs']);

/** Kinds whose content is all in the item: their ids may be another's, or made up by a framework. */
const NAMED_BY_CONTENT: ReadonlySet<string> = new Set([
  'message',
  'function_call',
  'function_call_output',
  'custom_tool_call',
  'custom_tool_call_output',
]);

export function readItem(text: string): Item {
  const value: unknown = parseExactly(text);
  const fields = asObject(value) ?? { value };
  const id = own(fields, 'id');
  return { kind: kindOf(fields), id: typeof id === 'string' && id !== '' ? id : undefined, fields };
}

/** `said`: what the upstream has. `told`: what the client says that it is. */
export function isSameItem(said: Item, told: Item): boolean {
  if (told.kind === 'item_reference') {
    // A reference to an item that is known is that item.
    return told.id !== undefined && told.id === said.id;
  }
  if (said.kind !== told.kind) return false;
  const sameId = said.id !== undefined && said.id === told.id;
  if (said.kind === 'reasoning') return isSameReasoning(said, told, sameId);
  if (!NAMED_BY_CONTENT.has(said.kind)) {
    // The upstream's own calls, approvals, pictures: the id may be all that tells two of them apart.
    if (said.id !== undefined && told.id !== undefined && !sameId) return false;
    if (sameId) return saysNothingElse(said.fields, told.fields);
  }
  return isSameFields(said.fields, told.fields);
}

/** Encrypted anew for the terminal, and by every relay: the same id and summary are the same thought. */
function isSameReasoning(said: Item, told: Item, sameId: boolean): boolean {
  if (said.id !== undefined && told.id !== undefined && !sameId) return false;
  const [a, b] = [said.fields, told.fields];
  const sameParts = ['summary', 'content'].every(
    (name) => isAbsent(own(b, name)) || isEqual(own(a, name) ?? null, own(b, name)),
  );
  if (!sameParts) return false;
  const [sealed, resealed] = [own(a, 'encrypted_content'), own(b, 'encrypted_content')];
  return sameId || (!isAbsent(sealed) && sealed === resealed) || (isAbsent(resealed) && hasWords(b));
}

function hasWords(fields: Json): boolean {
  return ['summary', 'content'].some((name) => !isAbsent(own(fields, name)));
}

/** Whatever the client tells of an item that its id names is what was said. */
function saysNothingElse(said: Json, told: Json): boolean {
  return Object.keys(told).every(
    (name) => SILENT.has(name) || isAbsent(own(told, name)) || isSameMember(name, said, told),
  );
}

function isSameFields(said: Json, told: Json): boolean {
  const names = namesOf(said, told);
  return names.every((name) => {
    if (SILENT.has(name)) return true;
    const [a, b] = [own(said, name), own(told, name)];
    if (isAbsent(b)) return isAbsent(a) || OPTIONAL.has(name);
    return isSameMember(name, said, told);
  });
}

function isSameMember(name: string, said: Json, told: Json): boolean {
  const [a, b] = [own(said, name), own(told, name)];
  return SAME.get(name)?.(a, b, said) ?? isEqual(a, b);
}

/** Members with more than one spelling. */
type Comparison = (said: unknown, told: unknown, item: Json) => boolean;

const SAME: ReadonlyMap<string, Comparison> = new Map<string, Comparison>([
  ['content', (said, told, item) => isSameContent(said, told, own(item, 'role') === 'assistant')],
  ['output', (said, told) => isSameContent(said, told, false)],
  ['arguments', isSameArguments],
]);

/** Plain text is a message of one part. */
function isSameContent(said: unknown, told: unknown, isAnswer: boolean): boolean {
  const [a, b] = [partsOf(said, isAnswer), partsOf(told, isAnswer)];
  if (!Array.isArray(a) || !Array.isArray(b)) return isEqual(said, told);
  return a.length === b.length && a.every((part, index) => isSamePart(part, b[index]));
}

function partsOf(content: unknown, isAnswer: boolean): unknown {
  if (typeof content !== 'string') return content;
  return [{ type: isAnswer ? 'output_text' : 'input_text', text: content }];
}

function isSamePart(said: unknown, told: unknown): boolean {
  const [a, b] = [asObject(said), asObject(told)];
  if (a === undefined || b === undefined) return isEqual(said, told);
  return namesOf(a, b).every(
    (name) => (OPTIONAL_OF_PART.has(name) && isAbsent(own(b, name))) || isEqual(own(a, name), own(b, name)),
  );
}

/** Frameworks parse the arguments of a call and print them with blanks of their own. */
function isSameArguments(said: unknown, told: unknown): boolean {
  if (said === told || typeof said !== 'string' || typeof told !== 'string') return said === told;
  // A call without arguments: some models say nothing where others say an empty object.
  const [a, b] = [said || '{}', told || '{}'];
  try {
    return isExactly(parseExactly(a), parseExactly(b));
  } catch {
    return false;
  }
}

/** As the API reads it: absent, null and an empty list are the same. */
function isEqual(said: unknown, told: unknown): boolean {
  if (isAbsent(said) || isAbsent(told)) return isAbsent(said) && isAbsent(told);
  return isSameShape(said, told, isEqual);
}

/** As JSON: a member that is null is not one that is absent. */
function isExactly(said: unknown, told: unknown): boolean {
  return isSameShape(said, told, isExactly);
}

function isSameShape(a: unknown, b: unknown, isSame: (a: unknown, b: unknown) => boolean): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((each, index) => isSame(each, b[index]));
  }
  const [left, right] = [asObject(a), asObject(b)];
  if (left === undefined || right === undefined) return false;
  return namesOf(left, right).every((name) => isSame(own(left, name), own(right, name)));
}

function namesOf(a: Json, b: Json): readonly string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])];
}

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0);
}

function kindOf(fields: Json): string {
  const type = own(fields, 'type');
  if (typeof type === 'string') return type;
  if (Object.hasOwn(fields, 'role')) return 'message';
  return Object.hasOwn(fields, 'id') ? 'item_reference' : '';
}

/** Numbers that a double does not hold exactly. */
const LONG_NUMBER = /\d{16}|\d[eE][+-]?\d{3}/;

/** Two numbers of 64 bits are not the same because they have the same double next to them. */
function parseExactly(text: string): unknown {
  if (!LONG_NUMBER.test(text)) return JSON.parse(text);
  return JSON.parse(text, function (this: unknown, _key, value: unknown, context?: { source?: string }) {
    return typeof value === 'number' && context?.source !== undefined && LONG_NUMBER.test(context.source)
      ? { number: context.source }
      : value;
  });
}
