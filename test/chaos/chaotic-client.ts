import { contextDigest } from '../../src/simulator/context.ts';
import {
  NO_OUTCOME,
  type TestClient,
  type TestEvent,
  type TestStream,
  userMessage,
} from '../harness/client.ts';

export interface FinishedTurn {
  readonly turnId: string;
  readonly text: string;
  readonly outcome: string;
  readonly replay: string | undefined;
  readonly reason: string | undefined;
  readonly responseId: string | undefined;
  readonly said: string;
  /** Digest of what the model should have read, by this client's own account. */
  readonly contextHash: string;
}

type Item = Record<string, unknown>;

interface Waiting {
  readonly events: TestEvent[];
  readonly done: (events: TestEvent[]) => void;
  readonly fail: (error: unknown) => void;
}

/**
 * A session's client that comes back whatever happens to its stream: it resumes by token, sends its unanswered
 * requests again, and keeps its own account of every conversation.
 */
export class ChaoticClient {
  readonly finished: FinishedTurn[] = [];
  readonly notices: string[] = [];
  reconnects = 0;
  readonly #client: TestClient;
  readonly #name: string;
  readonly #unanswered = new Map<string, Record<string, unknown>>();
  readonly #waiting = new Map<string, Waiting>();
  #stream: TestStream | undefined;
  #token: string | undefined;
  #lastSeq = 0;
  #closed = false;

  constructor(client: TestClient, name: string) {
    this.#client = client;
    this.#name = name;
  }

  /** Runs turns one after the other on a lane; each knows what came before. */
  async converse(lane: string, turns: number, more: () => boolean): Promise<void> {
    let history: Item[] = [];
    for (let n = 1; n <= turns && more(); n += 1) {
      const turnId = `${this.#name}.${lane}.${n}`;
      const text = `${turnId} #deltas=${1 + (n % 12)}`;
      const asked = [...history, { type: 'message', role: 'user', content: [{ type: 'input_text', text }] }];
      const events = await this.#turn(lane, turnId, text);
      const last = events.at(-1) as TestEvent;
      const outcome = last.outcome.replace('TURN_OUTCOME_', '');
      const failed = last.turn_failed ?? undefined;
      this.finished.push({
        turnId,
        text,
        outcome,
        replay: failed?.replay.replace('REPLAY_VERDICT_', ''),
        reason: failed?.reason,
        responseId: responseId(events),
        said: saidIn(events),
        contextHash: contextDigest(asked as never),
      });
      if (outcome === 'COMPLETED') history = [...asked, ...outputOf(events)];
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stream?.halfClose();
    await this.#stream?.ended().catch(() => undefined);
  }

  async open(): Promise<void> {
    while (!this.#closed) {
      const resume =
        this.#token === undefined ? {} : { resume: { token: this.#token, last_seq: this.#lastSeq } };
      const stream = this.#client.connect({ payload: 'PAYLOAD_FORMAT_BOTH', ...resume });
      this.#stream = stream;
      stream.call.on('data', (message: { events?: { events: TestEvent[] } | null }) => {
        try {
          for (const event of message.events?.events ?? []) this.#take(event);
        } catch (error) {
          this.#fail(error);
        }
      });
      const opened = await stream.opened().catch(() => undefined);
      if (opened === undefined) continue;
      if (opened.resume_outcome.endsWith('GONE') || opened.resume_outcome.endsWith('PARTIAL')) {
        throw new Error(`session lost: ${opened.resume_outcome}`);
      }
      this.#token = opened.resume_token;
      for (const request of this.#unanswered.values()) stream.send({ start_turn: request });
      void stream.ended().then(() => {
        if (this.#closed) return;
        this.reconnects += 1;
        this.open().catch((error) => this.#fail(error));
      });
      return;
    }
  }

  /** Nobody awaits what happens between turns: the turns that wait tell it. */
  #fail(error: unknown): void {
    this.#closed = true;
    for (const { fail } of this.#waiting.values()) fail(error);
  }

  #turn(lane: string, turnId: string, text: string): Promise<TestEvent[]> {
    return new Promise((done, fail) => {
      this.#waiting.set(turnId, { events: [], done, fail });
      const request = {
        lane_id: lane,
        turn_id: turnId,
        create: { model: 'gpt-6', store: false, input: [userMessage(text)] },
      };
      this.#unanswered.set(turnId, request);
      this.#stream?.send({ start_turn: request });
    });
  }

  #take(event: TestEvent): void {
    if (event.seq !== this.#lastSeq + 1) throw new Error(`seq ${event.seq} after ${this.#lastSeq}`);
    this.#lastSeq = event.seq;
    if (event.notice) this.notices.push(`${event.notice.kind}:${event.notice.reason}`);
    const turn = this.#waiting.get(event.turn_id);
    if (turn === undefined) {
      if (event.turn_id !== '') throw new Error(`${event.type} for ${event.turn_id} after its last event`);
      return;
    }
    this.#unanswered.delete(event.turn_id);
    turn.events.push(event);
    if (event.outcome === NO_OUTCOME) return;
    this.#waiting.delete(event.turn_id);
    turn.done(turn.events);
  }
}

function responseId(events: readonly TestEvent[]): string | undefined {
  const created = events.find(({ type }) => type === 'response.created');
  return created === undefined
    ? undefined
    : (JSON.parse(created.json.toString()) as { response: { id: string } }).response.id;
}

function saidIn(events: readonly TestEvent[]): string {
  return events
    .filter(({ type }) => type === 'response.output_text.delta')
    .map(({ json }) => (JSON.parse(json.toString()) as { delta: string }).delta)
    .join('');
}

function outputOf(events: readonly TestEvent[]): Item[] {
  return events
    .filter(({ type }) => type === 'response.output_item.done')
    .map(({ json }) => (JSON.parse(json.toString()) as { item: Item }).item);
}
