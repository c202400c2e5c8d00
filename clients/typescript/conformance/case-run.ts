import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import {
  Client,
  callOutput,
  type Event,
  type FunctionTool,
  type GoAway,
  type InputItem,
  image,
  jsonItem,
  type Lane,
  message,
  type Result,
  type Session,
  type SessionOptions,
  type ToolLoop,
  type Turn,
  type TurnRequest,
  tool,
} from '../src/index.ts';
import { compareResult, equal, expecting, optionsOf, type WantedError } from './compare.ts';
import { StoredSteps } from './stored.ts';

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
  readonly #log: string[] = [];
  readonly #more: Session[] = [];
  readonly #stored = new StoredSteps(() => this.#connected());
  #client: Client | undefined;
  #session: Session | undefined;
  #connecting: Promise<Session> | undefined;

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
    for (const session of this.#more) await session.close();
    await this.#session?.close();
    this.#client?.close();
  }

  async #step(name: string, fields: Fields, signal: AbortSignal): Promise<void> {
    switch (name) {
      case 'connect':
        return this.#connect(fields);
      case 'connected':
        return expecting(fields['error'], async () => {
          this.#session = await this.#connecting;
        });
      case 'start':
        return this.#start(fields, signal);
      case 'fork':
        return void (await this.#lane(fields['lane'])).fork(fields['to']);
      case 'until':
        return this.#until(fields, signal);
      case 'final':
        return this.#final(fields, signal);
      case 'steer':
        return this.#steer(fields);
      case 'connect_more':
        for (let n = 0; n < fields['count']; n += 1) this.#more.push(await this.#connectAgain());
        return;
      case 'close_client':
        return void (await this.#client?.close());
      case 'closed': {
        const error = await (await this.#open()).closed;
        return equal('error', undefined, error?.reason);
      }
      case 'reported':
        return poll(() => this.#log.some((line) => line.includes(fields['text'])), signal);
      case 'second_reader':
        return this.#secondReader(fields, signal);
      case 'dropped_reader':
        return void (await this.#turn(fields['turn']).turn.events({ signal }).next());
      case 'cancel':
        return this.#turn(fields['turn']).turn.cancel();
      case 'tools':
        return this.#tools(fields, signal);
      case 'parse':
        return this.#parse(fields);
      case 'run': {
        const result = await (await this.#lane('')).run({ input: this.#input(fields['input']) }, { signal });
        return compareResult(fields, result, []);
      }
      case 'create':
      case 'follow':
      case 'get':
      case 'delete':
      case 'cancel_response':
      case 'input_items':
      case 'count':
      case 'models':
        return this.#stored.step(name, fields, this.#input.bind(this));
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
          fields['count'],
        );
      case 'go_away':
        return poll(() => this.#goAways.some(({ draining }) => draining === fields['draining']), signal);
      case 'session_over': {
        const error = await (await this.#open()).closed;
        return equal('reason', fields['reason'], error?.reason);
      }
      case 'stats':
        return this.#stats(fields, signal);
      case 'close':
        return (await this.#open()).close();
      case 'control':
        return void (await this.#control(fields));
      default:
        throw new Error('unknown step');
    }
  }

  /** A client without a session. */
  #connected(): Client {
    this.#client ??= new Client({ address: this.#address });
    return this.#client;
  }

  async #connect(fields: Fields): Promise<void> {
    const options: SessionOptions = {
      model: fields['model'],
      upstream: fields['upstream'],
      rawJson: fields['raw_json'],
      resume: fields['resume'],
      recovery: fields['recovery'],
      maxBufferedBytes: fields['max_buffered_bytes'],
      maxQueuedBytes: fields['max_queued_bytes'],
      timeoutMs: fields['timeout_ms'],
      heartbeatMs: fields['heartbeat_ms'],
      closeTimeoutMs: fields['close_timeout_ms'],
      budget: fields['budget'],
      onEvent: (event) => {
        this.#sessionEvents.push(event);
        if (fields['callbacks'] === 'raise') throw new Error('a bug in a callback');
        return fields['callbacks'] === 'close' ? this.#session?.close() : undefined;
      },
      onGoAway: (goAway) => this.#goAways.push(goAway),
    };
    const token = fields['token_source'] ? tokenSource(fields['token_source']) : fields['token'];
    this.#client = new Client({
      address: this.#address,
      ...(token && { token }),
      logger: (level, text, error) => {
        this.#log.push(`${level} ${text} ${error ?? ''}`);
        if (fields['logger'] === 'raise') throw new Error('a bug in the logger');
      },
    });
    if (fields['later']) {
      this.#connecting = this.#client.connect(options);
      this.#connecting.catch(() => undefined);
      return;
    }
    await expecting(fields['error'], async () => {
      this.#session = await this.#client?.connect(options);
    });
  }

  async #connectAgain(): Promise<Session> {
    await this.#open();
    return (this.#client as Client).connect();
  }

  async #steer(fields: Fields): Promise<void> {
    const target = fields['turn'] ? this.#turn(fields['turn']).turn : await this.#lane(fields['lane']);
    const text = this.#input(fields['text']);
    if (!fields['timed_out']) return target.steer(text);
    // The first ones may still have found a stream that nobody knew to be lost.
    for (let n = 0; n < 20; n += 1) {
      const signal = AbortSignal.timeout(fields['timeout_ms']);
      const error = await target.steer(text, { signal }).catch((problem: unknown) => problem);
      if (error === undefined) continue;
      return equal('timed_out', signal.reason, error);
    }
    throw new Error('it did not wait');
  }

  async #secondReader(fields: Fields, signal: AbortSignal): Promise<void> {
    const { turn } = this.#turn(fields['turn']);
    turn.final({ signal }).catch(() => undefined);
    await expecting(fields['error'], () => turn.final({ signal }));
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
      ...optionsOf(fields['options'] ?? {}),
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
      if (item['parts'] !== undefined) {
        const parts = item['parts'].map((part: string | Fields) =>
          typeof part === 'string' ? part : image({ url: part['image_url'] }),
        );
        return message(item['role'], parts);
      }
      if (item['answer_of'] === undefined) return message(item['role'], item['text']);
      return message('assistant', this.#turn(item['answer_of']).turn.result.text);
    });
  }

  async #parse(fields: Fields): Promise<void> {
    const weather = z.object({ city: z.string(), celsius: z.number() });
    const lane = await this.#lane('');
    const { parsed, refusal, result, error } = await lane.parse({ input: fields['input'] }, weather);
    equal('parsed', JSON.stringify(fields['parsed']), JSON.stringify(parsed));
    equal('refusal', fields['refusal'] ?? '', refusal);
    equal('unfit', fields['unfit'] ?? false, error !== undefined);
    if (fields['outcome'] !== undefined) equal('outcome', fields['outcome'], result.outcome);
    if (fields['text'] !== undefined) equal('text', fields['text'], result.text);
  }

  async #until(fields: Fields, signal: AbortSignal): Promise<void> {
    const { turn, events } = this.#turn(fields['turn']);
    let missing: number = fields['count'] ?? 1;
    await expecting(fields['error'], async () => {
      for await (const event of turn.events({ signal })) {
        events.push(event);
        if (event.type === fields['type']) missing -= 1;
        if (missing === 0) return;
      }
      throw new Error(`the turn ended ${missing} events too early`);
    });
  }

  async #final(fields: Fields, signal: AbortSignal): Promise<void> {
    const { turn, events } = this.#turn(fields['turn']);
    await expecting(fields['error'], async () => {
      if (!fields['result_only']) for await (const event of turn.events({ signal })) events.push(event);
      // The result is the one accumulator's, whichever way the turn is read.
      await turn.final({ signal });
    });
    compareResult(fields, turn.result, events);
  }

  async #tools(fields: Fields, signal: AbortSignal): Promise<void> {
    const calls = new Calls({ session: () => this.#session?.close(), client: () => this.#client?.close() });
    const bug = (hook: string) => {
      if (fields['raise_in']?.includes(hook)) throw new Error('a bug in a hook');
    };
    const functions = Object.entries(fields['functions'] as Fields).map(([name, does]) =>
      calls.tool(name, does),
    );
    const request: TurnRequest = {
      input: this.#input(fields['input']),
      ...(fields['create_tools'] && {
        create: { tools: fields['create_tools'].map((name: string) => queryTool(name, '').spec) },
      }),
    };
    const cancel = new AbortController();
    const onStep = () => cancel.abort(signal.reason);
    signal.addEventListener('abort', onStep, { once: true });
    if (fields['cancel_in_call']) void calls.began.then(() => cancel.abort(new Error('enough')));
    const loop: ToolLoop = {
      functions,
      signal: cancel.signal,
      ...(fields['max_turns'] && { maxTurns: fields['max_turns'] }),
      ...(fields['max_time_ms'] && { maxTimeMs: fields['max_time_ms'] }),
      ...(fields['max_tokens'] && { maxTokens: fields['max_tokens'] }),
      ...(fields['tool_timeout_ms'] && { toolTimeoutMs: fields['tool_timeout_ms'] }),
      ...(fields['max_concurrency'] && { maxConcurrency: fields['max_concurrency'] }),
      ...(fields['max_cost'] && { maxCost: fields['max_cost'] }),
      price: ({ totalTokens }) => {
        bug('price');
        return totalTokens;
      },
      approve: ({ name }) => {
        bug('approve');
        return fields['deny']?.includes(name) !== true;
      },
      onCall: () => bug('on_call'),
    };
    const events: Event[] = [];
    const ended = { turn: undefined as Turn | undefined };
    const lane = await this.#lane(fields['lane']);
    const wanted: WantedError | undefined = fields['limit_reached']
      ? { reason: 'LOOP_TURN_LIMIT', ...fields['error'] }
      : fields['error'];
    const run = async () => {
      let number = 0;
      for await (const turn of lane.toolTurns(request, loop)) {
        ended.turn = turn;
        number += 1;
        for await (const event of turn.events({ signal: cancel.signal })) {
          events.push(event);
          if (number === fields['leave_after']) return;
        }
      }
    };
    if (fields['cancel_in_call']) {
      const error = await run().catch((problem: unknown) => problem);
      equal('cancelled', cancel.signal.reason, error);
    } else if (fields['raises']) {
      const error = await run().catch((problem: unknown) => problem);
      equal('raised', 'a bug in a hook', (error as Error | undefined)?.message);
    } else {
      await expecting(wanted, run);
    }
    signal.removeEventListener('abort', onStep);
    if (fields['calls'] !== undefined) equal('calls', fields['calls'], calls.made);
    if (fields['max_concurrency']) equal('at the same time', true, calls.most <= fields['max_concurrency']);
    const { turn } = ended;
    if (turn) this.#turns.set(fields['turn'], { turn, events });
    else if (!wanted) throw new Error('no turn');
    if (turn && !wanted && !fields['raises']) compareResult(fields, turn.result, events);
  }

  async #stats(fields: Fields, signal: AbortSignal): Promise<void> {
    const session = await this.#open();
    const { stats } = session;
    if (fields['resumes'] !== undefined) equal('resumes', fields['resumes'], stats.resumes);
    if (stats.resumes > (fields['resumes_at_most'] ?? stats.resumes))
      throw new Error(`${stats.resumes} resumes`);
    if (fields['buffered'] !== undefined)
      await poll(() => session.stats.bufferedBytes === fields['buffered'], signal);
    if (fields['running'] !== undefined)
      await poll(() => session.stats.runningTurns === fields['running'], signal);
    const most = fields['max_buffered_at_most'];
    if (most !== undefined && stats.maxBufferedBytes > most) {
      throw new Error(`${stats.maxBufferedBytes} bytes were buffered, more than ${most}`);
    }
  }

  async #see(matches: (event: Event) => boolean, signal: AbortSignal, count = 1): Promise<void> {
    const seen = () => [this.#sessionEvents, ...[...this.#turns.values()].map(({ events }) => events)].flat();
    await poll(() => seen().filter(matches).length >= count, signal);
  }

  #turn(name: string): { turn: Turn; events: Event[] } {
    const turn = this.#turns.get(name);
    if (!turn) throw new Error(`there is no turn ${name}`);
    return turn;
  }
}

/** The functions of a tool loop and what became of them. */
class Calls {
  made = 0;
  most = 0;
  readonly began: Promise<void>;
  readonly #begin: () => void;
  readonly #closes: Readonly<Record<string, () => unknown>>;
  #running = 0;

  constructor(closes: Readonly<Record<string, () => unknown>>) {
    this.#closes = closes;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.began = promise;
    this.#begin = resolve;
  }

  tool(name: string, does: Fields): FunctionTool {
    return queryTool(name, does['bytes'] ? 'x'.repeat(does['bytes']) : does['result'], async () => {
      this.made += 1;
      this.#running += 1;
      this.most = Math.max(this.most, this.#running);
      this.#begin();
      await sleep(1);
      this.#running -= 1;
      if (does['close']) await this.#closes[does['close']]?.();
      if (does['hang']) await new Promise(() => undefined);
      // Whatever can be thrown.
      if (does['crash']) throw does['crash'];
      if (does['error'] !== undefined) throw new Error(does['error']);
    });
  }
}

function tokenSource(plan: readonly string[]): () => Promise<string> {
  const left = [...plan];
  return () => {
    const todo = left.length > 1 ? left.shift() : left[0];
    // Not in a promise: the worst that a token source can do.
    if (todo === 'raise') throw new Error('no token');
    if (todo === 'hang') return new Promise(() => undefined);
    return Promise.resolve(todo === 'broken' ? 'to\nken' : 'token');
  };
}

function queryTool(
  name: string,
  result: string,
  onCall: () => Promise<void> = async () => undefined,
): FunctionTool {
  return tool({
    name,
    input: z.object({ query: z.string() }),
    run: async () => {
      await onCall();
      return result;
    },
  });
}

async function poll(done: () => boolean, signal: AbortSignal): Promise<void> {
  while (!done()) await sleep(5, undefined, { signal });
}
