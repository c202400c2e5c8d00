/**
 * A simulator of the OpenAI Responses API: WebSocket mode and HTTP on one port. It is the gateway's embedded default
 * upstream and its test double, and shares no code with the gateway.
 *
 * What it answers: the first rule of the script that fits (script.ts); otherwise what directives in the last user text
 * ask for; otherwise it calls every given function once, one a response, and then answers with a text that names the
 * number of items and the hash of the whole conversation it saw.
 *
 * Directives, anywhere in the last user message, separated by blanks:
 *
 * | directive | effect |
 * |---|---|
 * | `#tools=20` | 20 tool calls before the answer, over the given tools in turn |
 * | `#parallel=3` | up to three calls in one response |
 * | `#deltas=500` | an answer of 500 deltas |
 * | `#bytes=1000000` | an answer of one delta of that many bytes |
 * | `#messages=3` | the answer as three message items |
 * | `#say=word` | the answer is this word |
 * | `#reasoning` | a reasoning item first, encrypted content when included |
 * | `#image` or `#image=5000` | an image of that many bytes, with two partial images, then the answer |
 * | `#refuse` | a refusal instead of an answer |
 * | `#fail` or `#fail=code` | `response.failed` half way through the answer |
 * | `#incomplete`, `#filtered` | `response.incomplete` half way (max_output_tokens, content_filter) |
 * | `#error` or `#error=429` | an error frame (or HTTP status) instead of a response |
 * | `#hang` | silence half way through the answer |
 * | `#ttft=50`, `#tps=100` | this response's time to first token in ms, tokens a second |
 * | `#sparse` | no set-up events and no output in the terminal event |
 */
export { contextDigest } from './context.ts';
export { type Fault, type FaultInput, FaultSchema } from './faults.ts';
export type { Counters, Journal, JournalEntry, JournalStatus } from './journal.ts';
export {
  type Settings,
  type SettingsChange,
  type SimulatorOptions,
  SimulatorOptionsSchema,
  simulatorOptionsFromFile,
} from './options.ts';
export { InvalidSimulatorInput, parseScript, type Script, type ScriptInput, ScriptSchema } from './script.ts';
export { type Simulator, startSimulator } from './server.ts';
export { type ResponseRecord, ResponseStore } from './store.ts';
