import { expect } from 'vitest';
import { NO_OUTCOME, type TestEvent, type TestStream } from '../harness/client.ts';
import type { GatewayProcess } from './processes.ts';

/** What the client of a session keeps: what it has heard, over all its streams. */
export class ClientSession {
  readonly events: TestEvent[] = [];
  stream: TestStream;
  token = '';
  sessionId = '';

  constructor(stream: TestStream) {
    this.stream = stream;
  }

  static async open(gateway: Pick<GatewayProcess, 'client'>): Promise<ClientSession> {
    const session = new ClientSession(gateway.client().connect({ payload: 'PAYLOAD_FORMAT_BOTH' }));
    const opened = await session.stream.opened();
    session.token = opened.resume_token;
    session.sessionId = opened.session_id;
    expect(opened).toMatchObject({ resume_outcome: 'RESUME_OUTCOME_NEW', durable: true });
    return session;
  }

  get lastSeq(): number {
    return Math.max(this.#heard.at(-1)?.seq ?? 0, 0);
  }

  get lastCommit(): number {
    return Math.max(0, ...this.#heard.map(({ commit }) => Number(commit)));
  }

  hasHeardOf(turnId: string): boolean {
    return this.#heard.some((event) => event.turn_id === turnId);
  }

  /** The last event of a turn, on whichever stream it came. */
  outcomes(turnId: string): readonly TestEvent[] {
    return this.#heard.filter((event) => event.turn_id === turnId && event.outcome !== NO_OUTCOME);
  }

  get #heard(): TestEvent[] {
    return [...this.events, ...this.stream.events];
  }

  async resume(gateway: Pick<GatewayProcess, 'client'>): Promise<Record<string, unknown>> {
    const { lastSeq, lastCommit } = this;
    this.events.push(...this.stream.events);
    this.stream = gateway.client().connect({
      payload: 'PAYLOAD_FORMAT_BOTH',
      resume: { token: this.token, last_seq: lastSeq, last_commit: lastCommit },
    });
    const opened = await this.stream.opened();
    this.token = opened.resume_token;
    return opened;
  }

  /** Numbers without gap or repeat over all streams. */
  checkSeq(): void {
    expect(this.#heard.map(({ seq }) => seq)).toEqual(this.#heard.map((_, index) => index + 1));
  }
}
