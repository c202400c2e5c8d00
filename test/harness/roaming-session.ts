import { NO_OUTCOME, TestClient, type TestEvent, type TestStream } from './client.ts';

/** How a client of ours comes back: through a fresh connection, wherever that leads. */
export class RoamingSession {
  readonly events: TestEvent[] = [];
  readonly resumes: string[] = [];
  readonly sessionIds = new Set<string>();
  readonly #address: string;
  #client: TestClient | undefined;
  #stream: TestStream | undefined;
  /** Events of the stream that are in `events`. */
  #taken = 0;
  #token = '';

  constructor(address: string) {
    this.#address = address;
  }

  /** Runs a turn to its end, over as many streams as that takes. */
  async turn(turnId: string, text: string): Promise<TestEvent> {
    for (;;) {
      const stream = await this.stream();
      const known = this.#outcomeOf(turnId);
      if (known !== undefined) return known;
      // Sent again it is ignored.
      stream.startTurn({ turn_id: turnId }, text);
      try {
        await stream.turn(turnId);
      } catch {
        // The stream ended; the next one tells.
      }
      this.#take();
    }
  }

  /** One on which a turn may be started. */
  async stream(): Promise<TestStream> {
    for (;;) {
      const { endedWith, goAways = [] } = this.#stream ?? {};
      if (this.#stream !== undefined && endedWith === undefined && goAways.length === 0) return this.#stream;
      await this.#connect();
    }
  }

  close(): void {
    this.#client?.close();
  }

  async #connect(): Promise<void> {
    this.#take();
    this.#client?.close();
    this.#client = new TestClient(this.#address);
    const last = this.events.at(-1);
    const commit = Math.max(0, ...this.events.map((event) => Number(event.commit ?? 0)));
    const resume = { token: this.#token, last_seq: last?.seq ?? 0, last_commit: commit };
    this.#stream = this.#client.connect(this.#token === '' ? {} : { resume });
    this.#taken = 0;
    try {
      const opened = await this.#stream.opened();
      this.#token = opened.resume_token;
      this.sessionIds.add(opened.session_id);
      this.resumes.push(opened.resume_outcome.replace('RESUME_OUTCOME_', ''));
    } catch {
      // Nobody there yet: the next try is another connection.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  #take(): void {
    const { events = [], goAways = [] } = this.#stream ?? {};
    for (const event of events.slice(this.#taken)) {
      const due = (this.events.at(-1)?.seq ?? 0) + 1;
      if (event.seq !== due) throw new Error(`seq ${event.seq} where ${due} was due`);
      this.events.push(event);
    }
    this.#taken = events.length;
    const token = goAways.at(-1)?.['resume_token'];
    if (typeof token === 'string' && token !== '') this.#token = token;
  }

  #outcomeOf(turnId: string): TestEvent | undefined {
    this.#take();
    return this.events.find((event) => event.turn_id === turnId && event.outcome !== NO_OUTCOME);
  }
}
