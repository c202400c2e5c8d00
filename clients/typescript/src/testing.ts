import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Metadata, Server, ServerCredentials, type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { Code, Replay } from './errors.ts';
import { type EventSchema, ReplayVerdict, TurnOutcome } from './gen/responses/gateway/v1/event_pb.ts';
import type { InputItem, OutputItemSchema } from './gen/responses/gateway/v1/items_pb.ts';
import {
  type ConnectRequest,
  type ConnectResponse,
  ConnectResponseSchema,
  GoAwayReason,
  type Open,
  type OpenedSchema,
  ResumeOutcome,
  type StartTurn,
} from './gen/responses/gateway/v1/session_pb.ts';
import { responsesServiceDefinition } from './service.ts';

type EventInit = MessageInitShape<typeof EventSchema>;
type ItemInit = MessageInitShape<typeof OutputItemSchema>;
type Stream = ServerDuplexStream<ConnectRequest, ConnectResponse>;
type Play = (session: FakeSession, turn: FakeTurn) => void;

/** A turn that a client started. */
export interface FakeTurn {
  /** The whole message. */
  readonly start: StartTurn;
  readonly input: readonly InputItem[];
  /** The texts of the input's messages. */
  readonly text: string;
  cancelled: boolean;
}

/**
 * A gateway for tests, in this process: scripted turns, faults, lost streams and resumes, without an upstream. It plays
 * one script for each turn, in the order of the scripts; `ok` is the answer where there is none left. It knows lanes,
 * turns, cancels and resumes, and checks nothing that the real gateway checks.
 *
 *     await using gateway = await FakeGateway.start();
 *     using client = new Client({ address: gateway.address });
 *     gateway.call('weather', { city: 'Oslo' });
 *     gateway.answer('21 degrees');
 */
export class FakeGateway implements AsyncDisposable {
  readonly address: string;
  /** All turns that were started, in order. */
  readonly turns: FakeTurn[] = [];
  /** All Open messages, resumes included. */
  readonly opens: Open[] = [];
  readonly #server: Server;
  readonly #sessions = new Map<string, FakeSession>();
  readonly #scripts: Play[] = [];
  readonly #refusals: { readonly reason: string; readonly code: Code }[] = [];
  #calls = 0;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.address = `127.0.0.1:${port}`;
  }

  static async start(): Promise<FakeGateway> {
    const server = new Server({ 'grpc.max_receive_message_length': -1 });
    const made: { gateway?: FakeGateway } = {};
    server.addService(responsesServiceDefinition, {
      connect: (call: Stream) => {
        const { gateway } = made;
        if (gateway) gateway.#serve(call);
      },
    });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    made.gateway = new FakeGateway(server, port);
    return made.gateway;
  }

  /** The next turn answers with this text, in as many deltas as there are pieces. */
  answer(...pieces: readonly string[]): void {
    this.#scripts.push((session, turn) => session.respond(turn, [textItem(pieces.join(''))], pieces));
  }

  /** The next turn calls functions: one, and those of `more` beside it. */
  call(name: string, args: object, ...more: readonly (readonly [name: string, args: object])[]): void {
    this.#scripts.push((session, turn) =>
      session.respond(
        turn,
        [[name, args] as const, ...more].map(([each, given]) => ({
          kind: {
            case: 'functionCall' as const,
            value: { callId: `call_${++this.#calls}`, name: each, arguments: JSON.stringify(given) },
          },
        })),
      ),
    );
  }

  /** The model refuses the next turn. */
  refuse(text: string): void {
    this.#scripts.push((session, turn) => session.respond(turn, [refusalItem(text)]));
  }

  /** The next turn fails, after this much of an answer. */
  fail(
    reason: string,
    how: {
      readonly code?: Code;
      readonly replay?: Replay;
      readonly retryAfterMs?: number;
      readonly after?: string;
    } = {},
  ): void {
    this.#scripts.push((session, turn) => {
      if (how.after) session.begin(turn, [how.after]);
      session.fail(turn, TurnOutcome.FAILED, how.code ?? 'UNAVAILABLE', reason, how);
    });
  }

  /** The next turn begins, and ends only when it is cancelled. */
  hang(...pieces: readonly string[]): void {
    this.#scripts.push((session, turn) => void session.begin(turn, pieces));
  }

  /** The next stream is refused. */
  refuseOpen(reason: string, code: Code = 'UNAVAILABLE'): void {
    this.#refusals.push({ reason, code });
  }

  /**
   * Ends all streams as if the network did. Their sessions can be resumed, and what they are told until then is not
   * lost.
   */
  cut(): void {
    for (const session of this.#sessions.values()) session.cut();
  }

  /** Ends all streams and forgets the sessions: a resume finds nothing. */
  forget(): void {
    this.cut();
    this.#sessions.clear();
  }

  /** Announces that the gateway goes down. */
  drain(seconds = 10): void {
    const timeLeft = { seconds: BigInt(seconds) };
    for (const session of this.#sessions.values()) {
      session.send({ case: 'goAway', value: { reason: GoAwayReason.DRAINING, timeLeft } });
    }
  }

  async close(): Promise<void> {
    this.forget();
    this.#server.forceShutdown();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #serve(call: Stream): void {
    call.on('error', () => {});
    call.on('end', () => call.end());
    let session: FakeSession | undefined;
    call.on('data', ({ message }: ConnectRequest) => {
      if (message.case === 'open') session = this.#open(call, message.value);
      else if (session) this.#take(session, message);
    });
  }

  #open(call: Stream, open: Open): FakeSession | undefined {
    this.opens.push(open);
    const refusal = this.#refusals.shift();
    if (refusal) {
      call.emit('error', {
        code: status[refusal.code],
        details: 'as the test wants it',
        metadata: details(refusal.reason),
      });
      return undefined;
    }
    const known = open.resume && this.#sessions.get(open.resume.token);
    const session = known ?? new FakeSession(`session-${this.opens.length}`);
    this.#sessions.set(session.token, session);
    const outcome = known ? ResumeOutcome.RESUMED : open.resume ? ResumeOutcome.GONE : ResumeOutcome.NEW;
    session.attach(call, outcome, Number(open.resume?.lastSeq ?? 0n));
    return session;
  }

  #take(session: FakeSession, message: ConnectRequest['message']): void {
    if (message.case === 'cancelTurn') return session.cancel(message.value.turnId);
    // A turn that is known was sent again after a resume.
    if (message.case !== 'startTurn' || session.turns.has(message.value.turnId)) return;
    const start = message.value;
    const input = start.create?.input ?? [];
    const text = input
      .flatMap(({ kind }) => (kind.case === 'message' ? [kind.value.text ?? ''] : []))
      .join('\n');
    const turn: FakeTurn = { start, input, text, cancelled: false };
    this.turns.push(turn);
    session.start(turn, this.#scripts.shift() ?? ((on, each) => on.respond(each, [textItem('ok')], ['ok'])));
  }
}

/** Keeps all its events, so that a resume can have them again. */
class FakeSession {
  readonly id: string;
  readonly token: string;
  readonly turns = new Map<string, FakeTurn>();
  readonly #events: EventInit[] = [];
  readonly #waiting = new Map<string, { readonly turn: FakeTurn; readonly play: Play }[]>();
  readonly #running = new Map<string, FakeTurn>();
  #responses = 0;
  #stream: Stream | undefined;

  constructor(id: string) {
    this.id = id;
    this.token = `token of ${id}`;
  }

  attach(stream: Stream, resumeOutcome: ResumeOutcome, lastSeq: number): void {
    this.#stream?.end();
    this.#stream = stream;
    const activeTurns = [...this.#running.values()].map(({ start: { laneId, turnId } }) => ({
      laneId,
      turnId,
      phase: 3,
    }));
    this.send({
      case: 'opened',
      value: {
        sessionId: this.id,
        resumeToken: this.token,
        resumeGrace: { seconds: 10n },
        resumeOutcome,
        limits: { maxMessageBytes: 16n << 20n },
        activeTurns,
      } as MessageInitShape<typeof OpenedSchema>,
    });
    const events = this.#events.slice(lastSeq);
    if (events.length > 0) this.send({ case: 'events', value: { events } });
  }

  cut(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.emit('error', { code: status.UNAVAILABLE, details: 'the stream was cut' });
  }

  send(message: NonNullable<MessageInitShape<typeof ConnectResponseSchema>['message']>): void {
    this.#stream?.write(create(ConnectResponseSchema, { message }));
  }

  start(turn: FakeTurn, play: Play): void {
    const { laneId, turnId } = turn.start;
    this.turns.set(turnId, turn);
    this.#waiting.set(laneId, [...(this.#waiting.get(laneId) ?? []), { turn, play }]);
    this.#goOn(laneId);
  }

  cancel(turnId: string): void {
    const turn = this.turns.get(turnId);
    if (!turn || turn.cancelled) return;
    const { laneId } = turn.start;
    const waiting = this.#waiting.get(laneId) ?? [];
    const others = waiting.filter((each) => each.turn !== turn);
    if (others.length === waiting.length && this.#running.get(laneId) !== turn) return;
    this.#waiting.set(laneId, others);
    turn.cancelled = true;
    this.fail(turn, TurnOutcome.CANCELLED, 'CANCELLED', 'TURN_CANCELLED', { replay: 'unsafe' });
  }

  begin(turn: FakeTurn, pieces: readonly string[]): string {
    const id = `resp_${++this.#responses}`;
    this.#tell(turn, {
      type: 'response.created',
      payload: { case: 'responseCreated', value: { response: { id } } },
    });
    for (const delta of pieces) {
      this.#tell(turn, {
        type: 'response.output_text.delta',
        payload: { case: 'outputTextDelta', value: { delta } },
      });
    }
    return id;
  }

  respond(turn: FakeTurn, output: ItemInit[], pieces: readonly string[] = []): void {
    const id = this.begin(turn, pieces);
    const usage = { inputTokens: 10n, outputTokens: 5n, totalTokens: 15n };
    this.#end(turn, {
      type: 'response.completed',
      outcome: TurnOutcome.COMPLETED,
      payload: { case: 'responseCompleted', value: { response: { id, output, usage } } },
    });
  }

  fail(
    turn: FakeTurn,
    outcome: TurnOutcome,
    code: Code,
    reason: string,
    how: { readonly replay?: Replay; readonly retryAfterMs?: number },
  ): void {
    const { retryAfterMs } = how;
    const value = {
      code: status[code],
      reason,
      message: 'as the test wants it',
      replay: REPLAYS[how.replay ?? 'safe'],
      ...(retryAfterMs !== undefined && {
        retryAfter: { seconds: BigInt(Math.floor(retryAfterMs / 1000)), nanos: (retryAfterMs % 1000) * 1e6 },
      }),
    };
    this.#end(turn, { type: 'gateway.turn.failed', outcome, payload: { case: 'turnFailed', value } });
  }

  #end(turn: FakeTurn, event: EventInit): void {
    this.#tell(turn, event);
    const { laneId } = turn.start;
    if (this.#running.get(laneId) === turn) this.#running.delete(laneId);
    this.#goOn(laneId);
  }

  #goOn(laneId: string): void {
    if (this.#running.has(laneId)) return;
    const next = this.#waiting.get(laneId)?.shift();
    if (!next) return;
    this.#running.set(laneId, next.turn);
    next.play(this, next.turn);
  }

  #tell({ start: { laneId, turnId } }: FakeTurn, event: EventInit): void {
    const full = { ...event, laneId, turnId, seq: BigInt(this.#events.length + 1) } as EventInit;
    this.#events.push(full);
    this.send({ case: 'events', value: { events: [full] } });
  }
}

const REPLAYS: Readonly<Record<Replay, ReplayVerdict>> = {
  safe: ReplayVerdict.SAFE,
  unsafe: ReplayVerdict.UNSAFE,
  unknown: ReplayVerdict.UNKNOWN,
};

function textItem(text: string): ItemInit {
  return {
    kind: {
      case: 'message',
      value: { role: 'assistant', content: [{ kind: { case: 'outputText', value: { text } } }] },
    },
  };
}

function refusalItem(refusal: string): ItemInit {
  return {
    kind: {
      case: 'message',
      value: { role: 'assistant', content: [{ kind: { case: 'refusal', value: { refusal } } }] },
    },
  };
}

/** google.rpc.Status with an ErrorInfo of the gateway's. */
function details(reason: string): Metadata {
  const info = new BinaryWriter().tag(1, WireType.LengthDelimited).string(reason);
  info.tag(2, WireType.LengthDelimited).string('responses-gateway');
  const any = new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .string('type.googleapis.com/google.rpc.ErrorInfo');
  any.tag(2, WireType.LengthDelimited).bytes(info.finish());
  const metadata = new Metadata();
  const bytes = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(any.finish()).finish();
  metadata.set('grpc-status-details-bin', Buffer.from(bytes));
  return metadata;
}
