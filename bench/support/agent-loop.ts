/** The agent that all ways of the workflow benchmark run: what it says, what its tools answer, how it is timed. */
import { median } from './report.ts';

export type Item = Readonly<Record<string, unknown>>;

export interface TurnRequest {
  /** What this turn adds. */
  readonly fresh: readonly Item[];
  /** Everything so far, `fresh` included: what a client without server-side state has to send. */
  readonly whole: readonly Item[];
  readonly settings: Item;
}

export interface TurnResult {
  readonly output: readonly Item[];
  /** `performance.now()` at the first delta. */
  readonly firstMs: number;
}

/** One way of talking to the model, connected on its first turn. */
export interface Agent {
  turn(request: TurnRequest): Promise<TurnResult>;
  close(): Promise<void>;
}

export interface LoopTimes {
  readonly totalMs: number;
  readonly medianFirstMs: number;
}

export const INSTRUCTION_BYTES = 18_000;
export const TOOL_OUTPUT_BYTES = { min: 1_000, max: 4_000 } as const;

/** Instructions as the first message, or in the field that is sent again with every turn. */
export type Instructions = 'message' | 'field';

/** Runs until the model answers without a call. Connecting is part of the time. */
export async function runLoop(agent: Agent, calls: number, instructions: Instructions): Promise<LoopTimes> {
  const text = words(INSTRUCTION_BYTES, 1);
  const settings: Item = {
    model: 'gpt-5.5',
    tools: TOOLS,
    reasoning: { effort: 'low' },
    ...(instructions === 'field' && { instructions: text }),
  };
  const whole: Item[] = [];
  let fresh: Item[] = [
    ...(instructions === 'message' ? [message('developer', text)] : []),
    message('user', `Find out what is wrong. #tools=${calls} #reasoning`),
  ];
  const firsts: number[] = [];
  const started = performance.now();
  for (let turn = 0; ; turn += 1) {
    whole.push(...fresh);
    const sent = performance.now();
    const { output, firstMs } = await agent.turn({ fresh, whole, settings });
    firsts.push(firstMs - sent);
    whole.push(...output);
    const called = output.filter((item) => item['type'] === 'function_call');
    if (called.length === 0) {
      if (turn !== calls) throw new Error(`the model made ${turn} calls instead of ${calls}`);
      break;
    }
    fresh = called.map((call) => ({
      type: 'function_call_output',
      call_id: call['call_id'],
      output: words(outputBytes(turn), turn + 2),
    }));
  }
  return { totalMs: performance.now() - started, medianFirstMs: median(firsts) };
}

function message(role: string, text: string): Item {
  return { type: 'message', role, content: [{ type: 'input_text', text }] };
}

/** Spread evenly over the range, the same in every run. */
function outputBytes(turn: number): number {
  const { min, max } = TOOL_OUTPUT_BYTES;
  return min + ((turn * 1_237) % (max - min));
}

function words(bytes: number, seed: number): string {
  let text = '';
  for (let n = seed; text.length < bytes; n = (n * 48_271) % 0x7fffffff) text += `${n.toString(36)} `;
  return text.slice(0, bytes);
}

/** About 2 KB. */
const TOOLS: readonly Item[] = ['read_file', 'search', 'run_command', 'edit_file'].map((name, index) => ({
  type: 'function',
  name,
  description: words(250, index + 1_000),
  strict: false,
  parameters: {
    type: 'object',
    properties: {
      path: { type: 'string', description: words(60, index + 2_000) },
      query: { type: 'string', description: words(60, index + 3_000) },
    },
    required: ['path'],
  },
}));
