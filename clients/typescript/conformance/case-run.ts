import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import {
  Client,
  callOutput,
  type Event,
  GatewayError,
  type GoAway,
  type InputItem,
  jsonItem,
  type Lane,
  message,
  type Result,
  type Session,
  type SessionOptions,
  type Turn,
  TurnLimitError,
  type TurnRequest,
  tool,
} from '../src/index.ts';
import { compareError, compareResult, equal, type WantedError } from './compare.ts';

export type Step = Readonly<Record<string, Readonly<Record<string, never>>>>;
// biome-ignore lint/suspicious/noExplicitAny: the cases are checked by their own runner; a wrong field fails its step
type Fields = Readonly<Record<string, any>>;

const STEP_TIMEOUT_MS = 30_000;

/** What a case has made so far. */
export class CaseRun {
  readonly #address: string;
  readonly #control: (action: unknown) => Promise<unknown>;
  readonly #turns = new Map<string, { turn: Turn; events: Event[]; result?: Result }>();
  readonly #sessionEvents: Event[] = [];
  readonly #goAways: GoAway[] = [];
  #client: Client | undefined;
  #session: Session | undefined;

  constructor(address: string, control: (action: unknown) => Promise<unknown>) {
    this.#address = address;
    this.#control = control;
  }

  async steps(steps: readonly Step[]): Promise<void> {
    for (const [index, step] of steps.entries()) {
      const [name = '', fields = {}] = Object.entries(step)[0] ?? [];
      const timeout = new AbortController();
      try {
        await Promise.race([
          this.#step(name, fields, timeout.signal),
          sleep(STEP_TIMEOUT_MS, undefined, { signal: timeout.signal }).then(() => {
            throw new Error(`no end within ${STEP_TIMEOUT_MS} ms`);
          }),
        ]);
      } catch (error) {
        throw new Error(`step ${index + 1} (${name}): ${error instanceof Error ? error.message : error}`);
      } finally {
        timeout.abort();
      }
    }
  }

  async close(): Promise<void> {
    await this.#session?.close();
    this.#client?.close();
  }

  async #step(name: string, fields: Fields, signal: AbortSignal): Promise<void> {
    switch (name) {
      case 'connect':
        return this.#connect(fields);
      case 'start':
        return this.#start(fields, signal);
      case 'fork':
        return void (await this.#lane(fields['lane'])).fork(fields['to']);
      case 'until':
        return this.#until(fields, signal);
      case 'final':
        return this.#final(fields, signal);
      case 'steer':
        if (fields['turn']) this.#turn(fields['turn']).turn.steer(fields['text']);
        else (await this.#lane(fields['lane'])).steer(fields['text']);
        return;
      case 'cancel':
        return this.#turn(fields['turn']).turn.cancel();
      case 'tools':
        return this.#tools(fields, signal);
      case 'notice':
        return this.#see(
          ({ notice }) =>
            notice?.kind === fields['kind'] &&
            (fields['reason'] === undefined || notice?.reason === fields['reason']),
          signal,
        );
      case 'rejected':
        return this.#see(
          ({ type, failure }) => type === 'gateway.request.rejected' && failure?.reason === fields['reason'],
          signal,
        );
      case 'go_away':
        return poll(() => this.#goAways.some(({ draining }) => draining === fields['draining']), signal);
      case 'session_over': {
        const error = await (await this.#open()).closed;
        return equal('reason', fields['reason'], error?.reason);
      }
      case 'stats':
        return this.#stats(fields);
      case 'close':
        return (await this.#open()).close();
      case 'control':
        return void (await this.#control(fields));
      default:
        throw new Error('unknown step');
    }
  }

  async #connect(fields: Fields): Promise<void> {
    const options: SessionOptions = {
      model: fields['model'],
      upstream: fields['upstream'],
      rawJson: fields['raw_json'],
      resume: fields['resume'],
      recovery: fields['recovery'],
      maxBufferedBytes: fields['max_buffered_bytes'],
      onEvent: (event) => this.#sessionEvents.push(event),
      onGoAway: (goAway) => this.#goAways.push(goAway),
    };
    this.#client = new Client({ address: this.#address, ...(fields['token'] && { token: fields['token'] }) });
    await expecting(fields['error'], async () => {
      this.#session = await this.#client?.connect(options);
    });
  }

  async #open(): Promise<Session> {
    if (!this.#session) await this.#connect({ model: 'gpt-5.5' });
    return this.#session as Session;
  }

  async #lane(id: string | undefined): Promise<Lane> {
    return (await this.#open()).lane(id ?? '');
  }

  async #start(fields: Fields, signal: AbortSignal): Promise<void> {
    const lane = await this.#lane(fields['lane']);
    const request: TurnRequest = {
      input: this.#input(fields['input']),
      instructions: fields['instructions'],
      model: fields['model'],
      ...(fields['tools'] && { tools: fields['tools'].map((name: string) => queryTool(name, '').spec) }),
      store: fields['store'],
      create: {
        ...(fields['temperature'] !== undefined && { temperature: fields['temperature'] }),
        ...(fields['max_output_tokens'] !== undefined && { maxOutputTokens: fields['max_output_tokens'] }),
        ...(fields['extra_json'] && { extraJson: new TextEncoder().encode(fields['extra_json']) }),
      },
      from: fields['from'] && (this.#turns.get(fields['from'])?.turn.result.responseId ?? fields['from']),
      newConversation: fields['new_conversation'],
      fullHistory: fields['full_history'],
      timeoutMs: fields['timeout_ms'],
      waitOnRateLimit: fields['wait_on_rate_limit'],
      turnId: fields['turn_id'],
    };
    await expecting(fields['error'], async () => {
      const turn = await (fields['warm_up']
        ? lane.warmUp(request, { signal })
        : lane.start(request, { signal }));
      this.#turns.set(fields['turn'], { turn, events: [] });
    });
  }

  #input(input: unknown): string | InputItem[] {
    if (typeof input === 'string') return input;
    if (!Array.isArray(input)) {
      const { repeat, times } = input as { repeat: string; times: number };
      return repeat.repeat(times);
    }
    return input.map((item: Fields) => {
      if (item['json'] !== undefined) return jsonItem(item['json']);
      if (item['call_id'] !== undefined) return callOutput(item['call_id'], item['output']);
      if (item['answer_of'] === undefined) return message(item['role'], item['text']);
      return message('assistant', this.#turn(item['answer_of']).turn.result.text);
    });
  }

  async #until(fields: Fields, signal: AbortSignal): Promise<void> {
    const { turn, events } = this.#turn(fields['turn']);
    let missing: number = fields['count'] ?? 1;
    for await (const event of turn.events({ signal })) {
      events.push(event);
      if (event.type === fields['type']) missing -= 1;
      if (missing === 0) return;
    }
    throw new Error(`the turn ended ${missing} events too early`);
  }

  async #final(fields: Fields, signal: AbortSignal): Promise<void> {
    const { turn, events } = this.#turn(fields['turn']);
    await expecting(fields['error'], async () => {
      for await (const event of turn.events({ signal })) events.push(event);
      // The result is the one accumulator's, whichever way the turn is read.
      await turn.final({ signal });
    });
    compareResult(fields, turn.result, events);
  }

  async #tools(fields: Fields, signal: AbortSignal): Promise<void> {
    let calls = 0;
    const functions = Object.entries(fields['functions'] as Fields).map(([name, does]) =>
      queryTool(name, does.result, () => {
        calls += 1;
        if (does.error !== undefined) throw new Error(does.error);
      }),
    );
    const lane = await this.#lane(fields['lane']);
    const events: Event[] = [];
    let last: Turn | undefined;
    let limitReached = false;
    try {
      const loop = { functions, signal, ...(fields['max_turns'] && { maxTurns: fields['max_turns'] }) };
      for await (const turn of lane.toolTurns({ input: fields['input'] }, loop)) {
        last = turn;
        for await (const event of turn.events({ signal })) events.push(event);
      }
    } catch (error) {
      if (!(error instanceof TurnLimitError)) throw error;
      limitReached = true;
    }
    equal('limit_reached', fields['limit_reached'] ?? false, limitReached);
    if (fields['calls'] !== undefined) equal('calls', fields['calls'], calls);
    if (!last) throw new Error('no turn');
    this.#turns.set(fields['turn'], { turn: last, events });
    compareResult(fields, last.result, events);
  }

  async #stats(fields: Fields): Promise<void> {
    const { stats } = await this.#open();
    if (fields['resumes'] !== undefined) equal('resumes', fields['resumes'], stats.resumes);
    const most = fields['max_buffered_at_most'];
    if (most !== undefined && stats.maxBufferedBytes > most) {
      throw new Error(`${stats.maxBufferedBytes} bytes were buffered, more than ${most}`);
    }
  }

  async #see(matches: (event: Event) => boolean, signal: AbortSignal): Promise<void> {
    await poll(
      () =>
        this.#sessionEvents.some(matches) ||
        [...this.#turns.values()].some(({ events }) => events.some(matches)),
      signal,
    );
  }

  #turn(name: string): { turn: Turn; events: Event[] } {
    const turn = this.#turns.get(name);
    if (!turn) throw new Error(`there is no turn ${name}`);
    return turn;
  }
}

function queryTool(name: string, result: string, onCall: () => void = () => {}) {
  return tool({
    name,
    input: z.object({ query: z.string() }),
    run: () => {
      onCall();
      return result;
    },
  });
}

async function expecting(wanted: WantedError | undefined, work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!wanted || !(error instanceof GatewayError)) {
      throw error instanceof GatewayError
        ? new Error(`${error.reason} ${error.code}: ${error.message}`)
        : error;
    }
    return compareError(wanted, error);
  }
  if (wanted) throw new Error(`no error, but ${JSON.stringify(wanted)} was expected`);
}

async function poll(done: () => boolean, signal: AbortSignal): Promise<void> {
  while (!done()) await sleep(5, undefined, { signal });
}
