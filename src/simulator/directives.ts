/** Words in the last user message that say how the answer goes, with what they do. */
export const DIRECTIVES = {
  say: ['#say=TEXT', 'the answer is TEXT (no blanks)'],
  deltas: ['#deltas=N', 'an answer of N deltas'],
  bytes: ['#bytes=N', 'an answer of one delta of N bytes'],
  messages: ['#messages=N', 'the answer as N message items'],
  tools: ['#tools=N', 'calls N tools before it answers, the given ones in turn; default: each once'],
  parallel: ['#parallel=N', 'up to N calls in one response'],
  reasoning: ['#reasoning', 'a reasoning item first; encrypted content where it is included'],
  image: ['#image, #image=BYTES', 'a generated image with two partial ones, then the answer'],
  refuse: ['#refuse', 'a refusal instead of an answer'],
  fail: ['#fail, #fail=CODE', 'response.failed half way through the answer'],
  incomplete: ['#incomplete', 'response.incomplete half way: max_output_tokens'],
  filtered: ['#filtered', 'response.incomplete half way: content_filter'],
  error: ['#error, #error=STATUS', 'an error frame, or HTTP status, instead of a response'],
  hang: ['#hang', 'silence half way through the answer'],
  ttft: ['#ttft=MS', 'time to the first token of this response'],
  tps: ['#tps=N', 'tokens a second of this response'],
  sparse: ['#sparse', 'no set-up events, and no output in the terminal'],
} as const satisfies Record<string, readonly [form: string, effect: string]>;

export type Directive = keyof typeof DIRECTIVES;

/** What a text asks for: `#name` and `#name=value`, anywhere in it, separated by blanks. Other words with # mean nothing. */
export function readDirectives(text: string): ReadonlyMap<Directive, string> {
  const found = new Map<Directive, string>();
  if (!text.includes('#')) return found;
  for (const [, name = '', value = ''] of text.matchAll(/(?:^|\s)#([a-z][a-z-]*)(?:=([^\s]+))?/g)) {
    if (Object.hasOwn(DIRECTIVES, name)) found.set(name as Directive, value);
  }
  return found;
}
