import { fileURLToPath } from 'node:url';
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
} from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';

/** An event of a session as a plain object, in the upstream's JSON where there is one. */
export interface ClientEvent {
  readonly seq: number;
  readonly laneId: string;
  readonly turnId: string;
  readonly type: string;
  /** Set on the last event of a turn. */
  readonly outcome: string | undefined;
  readonly json: Readonly<Record<string, unknown>> | undefined;
  readonly failure:
    | { readonly reason: string; readonly message: string; readonly replay: string }
    | undefined;
  readonly notice: { readonly kind: string; readonly reason: string } | undefined;
}

export interface TurnRequest {
  readonly laneId: string;
  readonly turnId: string;
  /** Fields of CreateBody as proto-loader takes them; `input` as plain JSON items of the upstream. */
  readonly create: Readonly<Record<string, unknown>>;
  readonly input: readonly unknown[];
}

export interface ClientSession {
  readonly sessionId: string;
  startTurn(turn: TurnRequest): void;
  steerTurn(laneId: string, input: readonly unknown[]): void;
  cancelTurn(laneId: string, turnId: string): void;
  /** No more turns; the stream ends when the running ones have. */
  end(): void;
}

export interface SessionHandlers {
  onEvent(event: ClientEvent): void;
  onGoAway(reason: string): void;
  /** Once. Undefined: as planned. */
  onEnd(error: Error | undefined): void;
}

export interface ConnectOptions {
  readonly address: string;
  readonly credentials?: ChannelCredentials;
  readonly token?: string | undefined;
  readonly open?: Readonly<Record<string, unknown>>;
  /** How long to wait for Opened. */
  readonly timeoutMs?: number;
}

/** A gateway on the same machine answers in milliseconds; ten seconds cover a far one. */
const DEFAULT_TIMEOUT_MS = 10_000;

const SERVICE_FILE = 'responses/gateway/v1/service.proto';
const PACKAGE = 'responses.gateway.v1';
/** Two folders up both in the sources and in the published package. */
const PROTO_ROOT = fileURLToPath(new URL('../../proto', import.meta.url));

/**
 * Opens one session over grpc-js: enough for the chat, the demo and smoke tests. Programs use the client in
 * clients/typescript, which also resumes.
 */
export function openSession(options: ConnectOptions, handlers: SessionHandlers): Promise<ClientSession> {
  const client = new Client(options.address, options.credentials ?? credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc.enable_retries': 0,
  });
  const metadata = new Metadata();
  if (options.token !== undefined) metadata.set('authorization', `Bearer ${options.token}`);
  const { encode, decode } = codec();
  const stream: ClientDuplexStream<object, ConnectResponse> = client.makeBidiStreamRequest(
    `/${PACKAGE}.ResponsesService/Connect`,
    encode,
    decode,
    metadata,
  );
  stream.write({ open: { payload: 'PAYLOAD_FORMAT_JSON', ...options.open } });
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => stream.cancel(), options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    let opened = false;
    let ended = false;
    const finish = (error: Error | undefined) => {
      if (ended) return;
      ended = true;
      clearTimeout(timer);
      client.close();
      if (opened) handlers.onEnd(error);
      else reject(error ?? new Error('the gateway closed the stream before it opened'));
    };
    stream.on('data', ({ opened: facts, events, go_away: goAway }: ConnectResponse) => {
      if (facts !== undefined) {
        opened = true;
        clearTimeout(timer);
        resolve(sessionOver(stream, facts.session_id));
      }
      for (const event of events?.events ?? []) handlers.onEvent(readEvent(event));
      if (goAway !== undefined) handlers.onGoAway(goAway.reason);
    });
    stream.on('error', finish);
    stream.on('end', () => finish(undefined));
  });
}

function sessionOver(stream: ClientDuplexStream<object, ConnectResponse>, sessionId: string): ClientSession {
  return {
    sessionId,
    startTurn: ({ laneId, turnId, create, input }) => {
      stream.write({
        start_turn: { lane_id: laneId, turn_id: turnId, create: { ...create, input: input.map(rawItem) } },
      });
    },
    steerTurn: (laneId, input) => {
      stream.write({ steer_turn: { lane_id: laneId, input: input.map(rawItem) } });
    },
    cancelTurn: (laneId, turnId) => {
      stream.write({ cancel_turn: { lane_id: laneId, turn_id: turnId } });
    },
    end: () => stream.end(),
  };
}

function rawItem(item: unknown): object {
  return { json: Buffer.from(JSON.stringify(item)) };
}

function readEvent(event: WireEvent): ClientEvent {
  const failed = event.turn_failed;
  return {
    seq: Number(event.seq),
    laneId: event.lane_id,
    turnId: event.turn_id,
    type: event.type,
    outcome:
      event.outcome === 'TURN_OUTCOME_UNSPECIFIED' ? undefined : event.outcome.replace('TURN_OUTCOME_', ''),
    json:
      event.json.length === 0 ? undefined : (JSON.parse(event.json.toString()) as Record<string, unknown>),
    failure:
      failed === undefined
        ? undefined
        : {
            reason: failed.reason,
            message: failed.message,
            replay: failed.replay.replace('REPLAY_VERDICT_', ''),
          },
    notice: event.notice,
  };
}

interface WireEvent {
  readonly seq: string;
  readonly lane_id: string;
  readonly turn_id: string;
  readonly type: string;
  readonly outcome: string;
  readonly json: Buffer;
  readonly turn_failed?: { readonly reason: string; readonly message: string; readonly replay: string };
  readonly notice?: { readonly kind: string; readonly reason: string };
}

interface ConnectResponse {
  readonly opened?: { readonly session_id: string };
  readonly events?: { readonly events: readonly WireEvent[] };
  readonly go_away?: { readonly reason: string };
}

let loaded: { encode(message: object): Buffer; decode(bytes: Buffer): ConnectResponse } | undefined;

function codec() {
  loaded ??= loadCodec();
  return loaded;
}

function loadCodec() {
  const definitions = loadSync(SERVICE_FILE, {
    includeDirs: [PROTO_ROOT],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const request = definitions[`${PACKAGE}.ConnectRequest`] as unknown as MessageTypeDefinition<
    object,
    object
  >;
  const response = definitions[`${PACKAGE}.ConnectResponse`] as unknown as MessageTypeDefinition<
    object,
    object
  >;
  return {
    encode: (message: object) => request.serialize(message),
    decode: (bytes: Buffer) => response.deserialize(bytes) as ConnectResponse,
  };
}
