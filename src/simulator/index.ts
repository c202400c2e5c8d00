/**
 * A simulator of the OpenAI Responses API: WebSocket mode and HTTP on one port. It is the gateway's embedded default
 * upstream and its test double, and shares no code with the gateway.
 *
 * What it answers: the first rule of the script that fits (script.ts); otherwise what directives in the last user text
 * ask for (directives.ts); otherwise it calls every given function once, one a response, and then answers with a text that names the
 * number of items and the hash of the whole conversation it saw.
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
export { type ReferenceSection, simulatorReference } from './reference.ts';
export { InvalidSimulatorInput, parseScript, type Script, type ScriptInput, ScriptSchema } from './script.ts';
export { type Simulator, startSimulator } from './server.ts';
export { type ResponseRecord, ResponseStore } from './store.ts';
