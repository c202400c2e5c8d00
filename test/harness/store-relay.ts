import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Stands between a gateway and its store, and decides what becomes of answers. A request is known by a word that it
 * holds, such as the kind of an entry.
 */
export class StoreRelay implements AsyncDisposable {
  readonly #server: Server;
  /** Port of the server; may be told after a server has been told the relay's. */
  target: number;
  /** How long each answer takes on its way. */
  delayMs = 0;
  readonly #pairs = new Set<{ client: Socket; server: Socket }>();
  #holding = false;
  #watch: { readonly word: string; readonly seen: () => void; readonly then: 'hold' | 'cut' } | undefined;

  private constructor(server: Server, target: number) {
    this.#server = server;
    this.target = target;
  }

  static async start(target: number): Promise<StoreRelay> {
    const server = createServer();
    const relay = new StoreRelay(server, target);
    server.on('connection', (client) => relay.#carry(client));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return relay;
  }

  get url(): string {
    const address = this.#server.address();
    return `valkey://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
  }

  get port(): number {
    return Number(this.url.split(':').at(-1));
  }

  /** From the next request with this word on, nothing that the server says gets through. Resolves when it has passed. */
  holdAnswersFrom(word: string): Promise<void> {
    return this.#watchFor(word, 'hold');
  }

  /** The next request with this word is carried out, and its answer is lost with the connection. */
  loseAnswerOf(word: string): Promise<void> {
    return this.#watchFor(word, 'cut');
  }

  /** What was held goes on. */
  release(): void {
    this.#holding = false;
    for (const { server } of this.#pairs) server.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
    this.#server.close();
    await once(this.#server, 'close');
  }

  #watchFor(word: string, then: 'hold' | 'cut'): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#watch = { word: `\r\n${word}\r\n`, seen: resolve, then };
    return promise;
  }

  #carry(client: Socket): void {
    const server = connect(this.target, '127.0.0.1');
    const pair = { client, server };
    this.#pairs.add(pair);
    let cut = false;
    let delayed = 0;
    let answers = Promise.resolve();
    client.on('data', (chunk: Buffer) => {
      const watch = this.#watch;
      if (watch !== undefined && chunk.includes(watch.word)) {
        this.#watch = undefined;
        if (watch.then === 'hold') this.#holding = true;
        else cut = true;
        if (this.#holding) for (const other of this.#pairs) other.server.pause();
        server.write(chunk, watch.seen);
      } else server.write(chunk);
    });
    server.on('data', (chunk: Buffer) => {
      // It has been carried out: this is the answer.
      if (cut) client.destroy();
      else if (this.delayMs === 0 && delayed === 0) client.write(chunk);
      else {
        delayed += 1;
        answers = answers.then(async () => {
          await delay(this.delayMs);
          delayed -= 1;
          client.write(chunk);
        });
      }
    });
    if (this.#holding) server.pause();
    const end = () => {
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      socket.on('close', end);
      socket.on('error', () => {});
    }
  }
}
