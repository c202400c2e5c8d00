import { readFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import { type ChannelCredentials, credentials } from '@grpc/grpc-js';
import { EXIT } from '../app/exit-codes.ts';
import { connectionHelp } from './chat-help.ts';
import { ChatInput, isCommand } from './chat-input.ts';
import { type ClientEvent, type ClientSession, openSession } from './gateway-client.ts';

const DEFAULT_MODEL = 'gpt-5.5';

const HELP = `  /lane NAME   go to that lane; each lane is a conversation of its own, "/lane" alone is the default one
  /steer TEXT  add to the turn that runs on this lane
  /cancel      give up the turn that runs on this lane
  /quit        end, after the running turns
`;

/** A conversation in the terminal, or from a pipe: then each turn waits for the answer to the one before. */
export async function chatCommand(
  options: Readonly<Record<string, unknown>>,
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  const address = String(options.address);
  const chat = new Chat({
    model: typeof options.model === 'string' ? options.model : DEFAULT_MODEL,
    instructions: typeof options.instructions === 'string' ? options.instructions : undefined,
  });
  const tokenEnv = String(options.tokenEnv);
  const token = environment[tokenEnv];
  const caFile = typeof options.caFile === 'string' ? options.caFile : undefined;
  const tls = options.tls === true || caFile !== undefined;
  let session: ClientSession;
  try {
    session = await openSession(
      {
        address,
        credentials: channelCredentials(tls, caFile),
        token,
        open: {
          client_name: 'responses-gateway chat',
          ...(typeof options.upstream === 'string' ? { upstream: options.upstream } : {}),
        },
      },
      {
        onEvent: (event) => chat.event(event),
        onGoAway: (reason) => chat.note(`the gateway is going away (${reason})`),
        onEnd: (error) => chat.ended(error),
      },
    );
  } catch (error) {
    const { message } = error as Error;
    const help = connectionHelp(message, { tls, tokenEnv, hasToken: Boolean(token), caFile });
    process.stderr.write(`error: no session at ${address}: ${safe(message)}\nhelp: ${help}\n`);
    return EXIT.failure;
  }
  chat.note(`session ${session.sessionId} at ${address}; /help tells the commands`);
  return chat.run(session);
}

interface ChatOptions {
  readonly model: string;
  readonly instructions: string | undefined;
}

class Chat {
  readonly #create: Readonly<Record<string, unknown>>;
  readonly #interactive = process.stdin.isTTY === true && process.stdout.isTTY === true;
  /** Turns of each lane that have not ended, the running one first. */
  readonly #running = new Map<string, string[]>();
  /** Text of turns on lanes that are not shown at the moment. */
  readonly #unseen = new Map<string, string>();
  #idle = Promise.withResolvers<void>();
  readonly #over = Promise.withResolvers<Error | undefined>();
  #lane = '';
  #turns = 0;
  #ended = false;
  #input: ChatInput | undefined;

  constructor({ model, instructions }: ChatOptions) {
    this.#create = { model, ...(instructions === undefined ? {} : { instructions }) };
  }

  async run(session: ClientSession): Promise<number> {
    const input = new ChatInput(this.#interactive);
    this.#input = input;
    // Ctrl-C gives up the turn, as /cancel does; with nothing running it ends the chat.
    input.onInterrupt(() => (this.#running.has(this.#lane) ? this.#cancel(session) : input.close()));
    void this.#over.promise.then(() => input.close());
    this.#prompt();
    for await (const entry of input.entries()) {
      if (!(await this.#command(session, entry.trim()))) break;
      if (!this.#running.has(this.#lane)) this.#prompt();
    }
    input.close();
    session.end();
    const error = await this.#over.promise;
    if (error === undefined) return EXIT.ok;
    process.stderr.write(`error: ${error.message}\n`);
    return EXIT.failure;
  }

  event(event: ClientEvent): void {
    const { laneId, type, json } = event;
    if (type === 'response.output_text.delta') this.#text(laneId, String(json?.['delta'] ?? ''));
    else if (type === 'response.refusal.delta') this.#text(laneId, String(json?.['delta'] ?? ''));
    else if (type === 'response.steer.failed') this.note(`the steer was not taken: ${whyOf(json)}`);
    if (event.notice !== undefined) this.note(`${event.notice.kind}: ${event.notice.reason}`);
    if (event.failure !== undefined) {
      this.note(`${event.failure.reason}: ${event.failure.message} (replay ${event.failure.replay})`);
    }
    if (event.outcome !== undefined) this.#turnEnded(laneId, event.turnId, event.outcome);
  }

  note(text: string): void {
    process.stderr.write(
      `${this.#interactive ? '\x1b[2m' : ''}# ${safe(text)}${this.#interactive ? '\x1b[0m' : ''}\n`,
    );
  }

  ended(error: Error | undefined): void {
    this.#ended = true;
    this.#running.clear();
    this.#idle.resolve();
    this.#over.resolve(error);
  }

  /** False: the chat is over. */
  async #command(session: ClientSession, entry: string): Promise<boolean> {
    if (entry === '') return true;
    if (!isCommand(entry)) {
      await this.#turn();
      this.#start(session, entry);
      return true;
    }
    const [, name = '', rest = ''] = /^\/(\w*)\s*(.*)$/s.exec(entry) ?? [];
    switch (name) {
      case 'steer':
        if (!this.#running.has(this.#lane)) {
          this.note('nothing runs on this lane that could be steered; send it as a turn');
          return true;
        }
        if (rest === '') {
          this.note('/steer TEXT: found no text');
          return true;
        }
        session.steerTurn(this.#lane, [userMessage(rest)]);
        return true;
      case 'cancel':
        this.#cancel(session);
        return true;
      case 'lane':
        await this.#turn();
        this.#goTo(rest);
        return true;
      case 'quit':
        await this.#turn();
        return false;
      case 'help':
        process.stdout.write(HELP);
        return true;
      default:
        this.note(`there is no /${name}; /help tells the commands`);
        return true;
    }
  }

  #start(session: ClientSession, text: string): void {
    // Lines that were read before still come; a turn that nobody ends would be waited for without end.
    if (this.#ended) return;
    this.#turns += 1;
    const turnId = `chat-${this.#turns}`;
    this.#running.set(this.#lane, [...(this.#running.get(this.#lane) ?? []), turnId]);
    session.startTurn({ laneId: this.#lane, turnId, create: this.#create, input: [userMessage(text)] });
  }

  /** From a pipe, the lines of a lane wait for its turn; a person may type ahead, the gateway queues. */
  async #turn(): Promise<void> {
    while (!this.#interactive && this.#running.has(this.#lane)) await this.#idle.promise;
  }

  #cancel(session: ClientSession): void {
    const turnId = this.#running.get(this.#lane)?.[0];
    if (turnId === undefined) this.note('no turn runs on this lane');
    else session.cancelTurn(this.#lane, turnId);
  }

  #goTo(lane: string): void {
    this.#lane = lane;
    process.stdout.write(safe(this.#unseen.get(lane) ?? ''));
    this.#unseen.delete(lane);
  }

  #text(laneId: string, delta: string): void {
    if (laneId === this.#lane) process.stdout.write(safe(delta));
    else this.#unseen.set(laneId, (this.#unseen.get(laneId) ?? '') + delta);
  }

  #turnEnded(laneId: string, turnId: string, outcome: string): void {
    this.#text(laneId, '\n');
    if (outcome !== 'COMPLETED') this.note(`turn ended: ${outcome.toLowerCase()}`);
    const left = (this.#running.get(laneId) ?? []).filter((each) => each !== turnId);
    if (left.length === 0) this.#running.delete(laneId);
    else this.#running.set(laneId, left);
    this.#idle.resolve();
    this.#idle = Promise.withResolvers();
    if (laneId === this.#lane) {
      if (left.length === 0) this.#prompt();
    } else this.note(`lane ${laneId || '(default)'} has an answer`);
  }

  #prompt(): void {
    if (this.#interactive) this.#input?.prompt(`${safe(this.#lane)}> `);
  }
}

function userMessage(text: string): object {
  return { type: 'message', role: 'user', content: text };
}

/** What a model says must not move the cursor or rename the window. */
function safe(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is removed
  return stripVTControlCharacters(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
}

function channelCredentials(tls: boolean, caFile: string | undefined): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  return credentials.createSsl(caFile === undefined ? null : readFileSync(caFile));
}

/** What the upstream says of a steer that it did not take. */
function whyOf(json: ClientEvent['json']): string {
  const { code, message } = (json?.['error'] ?? {}) as {
    readonly code?: unknown;
    readonly message?: unknown;
  };
  return [code, message].filter((part) => typeof part === 'string').join(': ') || 'the upstream says no more';
}
