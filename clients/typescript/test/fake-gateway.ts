import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Server, ServerCredentials, type ServerDuplexStream, type ServiceError, status } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import { Client, type ClientOptions, type Session, type SessionOptions } from '../src/index.ts';
import {
  type ConnectRequest,
  type ConnectResponse,
  ConnectResponseSchema,
  type EventSchema,
  type Open,
  type OpenedSchema,
  type OutputItemSchema,
  ResumeOutcome,
  responsesServiceDefinition,
  type StartTurn,
  TurnOutcome,
} from '../src/proto.ts';

type EventInit = MessageInitShape<typeof EventSchema>;
type Scene = (stream: FakeStream) => Promise<void>;

/** A gateway of which a test plays each stream itself. */
export async function connectTo(options: SessionOptions, ...scenes: readonly Scene[]): Promise<Session> {
  const { client } = await fakeGateway({}, ...scenes);
  const session = await client.connect(options);
  onTestFinished(() => session.close());
  return session;
}

export async function fakeGateway(
  options: ClientOptions,
  ...scenes: readonly Scene[]
): Promise<{ readonly client: Client; readonly served: () => number }> {
  const server = new Server({ 'grpc.max_receive_message_length': -1 });
  let served = 0;
  server.addService(responsesServiceDefinition, {
    connect: (call: ServerDuplexStream<ConnectRequest, ConnectResponse>) => {
      const scene = scenes[served];
      served += 1;
      const stream = new FakeStream(call);
      if (!scene) return stream.fail(status.FAILED_PRECONDITION, 'more streams than the test expects');
      scene(stream).catch((error: unknown) => stream.fail(status.INTERNAL, String(error)));
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const client = new Client({ address: `127.0.0.1:${port}`, ...options });
  onTestFinished(() => {
    client.close();
    server.forceShutdown();
  });
  return { client, served: () => served };
}

export class FakeStream {
  readonly call: ServerDuplexStream<ConnectRequest, ConnectResponse>;
  seq = 0;
  open: Open | undefined;
  /** Resolves when all that was sent has left. A failure overtakes what has not. */
  flushed: Promise<void> = Promise.resolve();
  readonly #received: AsyncIterator<ConnectRequest>;

  constructor(call: ServerDuplexStream<ConnectRequest, ConnectResponse>) {
    this.call = call;
    call.on('error', () => {});
    this.#received = call[Symbol.asyncIterator]();
  }

  /** The next message; undefined when the client has ended its side or is gone. */
  async receive(): Promise<ConnectRequest['message'] | undefined> {
    const next = await this.#received.next().catch(() => undefined);
    return next?.done === false ? next.value.message : undefined;
  }

  /** Reads Open and answers it. */
  async accept(change: MessageInitShape<typeof OpenedSchema> = {}): Promise<Open> {
    const message = await this.receive();
    if (message?.case !== 'open') throw new Error(`Open expected, ${message?.case} came`);
    this.open = message.value;
    const resume = message.value.resume;
    if (resume) this.seq = Number(resume.lastSeq);
    this.send({
      case: 'opened',
      value: {
        sessionId: 'session-1',
        resumeToken: resume ? `${resume.token}+` : 'token-1',
        resumeGrace: { seconds: 5n },
        resumeOutcome: resume ? ResumeOutcome.RESUMED : ResumeOutcome.NEW,
        limits: { maxMessageBytes: 1n << 20n },
        ...change,
      } as MessageInitShape<typeof OpenedSchema>,
    });
    return message.value;
  }

  /** Waits for a StartTurn and passes over acknowledgements. */
  async startTurn(): Promise<StartTurn> {
    for (;;) {
      const message = await this.receive();
      if (message?.case === 'startTurn') return message.value;
      if (message?.case !== 'ack') throw new Error(`StartTurn expected, ${message?.case} came`);
    }
  }

  /** Numbers events and sends them in one batch. */
  events(...events: readonly EventInit[]): void {
    this.send({
      case: 'events',
      value: { events: events.map((event) => ({ ...event, seq: BigInt(++this.seq) }) as EventInit) },
    });
  }

  send(message: NonNullable<MessageInitShape<typeof ConnectResponseSchema>['message']>): void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.flushed = promise;
    this.call.write(create(ConnectResponseSchema, { message }), () => resolve());
  }

  fail(code: status, details: string, metadata?: ServiceError['metadata']): void {
    this.call.emit('error', { code, details, ...(metadata && { metadata }) });
  }

  /** Ends with OK when the client has ended its side; returns what came until then. */
  async drain(): Promise<ConnectRequest['message'][]> {
    const messages: ConnectRequest['message'][] = [];
    for (let message = await this.receive(); message; message = await this.receive()) messages.push(message);
    this.call.end();
    return messages;
  }
}

export function created({ laneId, turnId }: TurnNames, id: string): EventInit {
  return {
    laneId,
    turnId,
    type: 'response.created',
    payload: { case: 'responseCreated', value: { response: { id } } },
  };
}

export function delta({ laneId, turnId }: TurnNames, text: string): EventInit {
  return {
    laneId,
    turnId,
    type: 'response.output_text.delta',
    payload: { case: 'outputTextDelta', value: { delta: text } },
  };
}

export function itemDone(
  { laneId, turnId }: TurnNames,
  item: MessageInitShape<typeof OutputItemSchema>,
): EventInit {
  return {
    laneId,
    turnId,
    type: 'response.output_item.done',
    payload: { case: 'outputItemDone', value: { item } },
  };
}

export function completed(
  { laneId, turnId }: TurnNames,
  id: string,
  ...output: readonly MessageInitShape<typeof OutputItemSchema>[]
): EventInit {
  return {
    laneId,
    turnId,
    type: 'response.completed',
    outcome: TurnOutcome.COMPLETED,
    payload: {
      case: 'responseCompleted',
      value: {
        response: { id, output: [...output], usage: { inputTokens: 3n, outputTokens: 4n, totalTokens: 7n } },
      },
    },
  };
}

export function answer(text: string): MessageInitShape<typeof OutputItemSchema> {
  return {
    kind: {
      case: 'message',
      value: { role: 'assistant', content: [{ kind: { case: 'outputText', value: { text } } }] },
    },
  };
}

export function functionCall(
  callId: string,
  name: string,
  args: string,
): MessageInitShape<typeof OutputItemSchema> {
  return { kind: { case: 'functionCall', value: { callId, name, arguments: args } } };
}

export interface TurnNames {
  readonly laneId: string;
  readonly turnId: string;
}
