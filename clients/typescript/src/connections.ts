import type { Client as GrpcClient } from '@grpc/grpc-js';

/** Below what proxies allow on a connection by default (HAProxy 100, nginx 128), with room for calls without a session. */
const MAX_STREAMS = 90;

export interface Connection {
  readonly grpc: GrpcClient;
  streams: number;
  /** As many as the peer is known to take. */
  limit: number;
  /** Its gateway goes away: nothing new is opened here. */
  retired: boolean;
}

/**
 * The connections of a client's sessions, in the order of their making; a further one when the others are full. And one
 * for calls without a session, which a peer's limit of streams would otherwise keep waiting for sessions to end.
 */
export class Connections {
  readonly #make: () => GrpcClient;
  #apart: GrpcClient | undefined;
  readonly #all: Connection[] = [];

  constructor(make: () => GrpcClient) {
    this.#make = make;
  }

  /** For calls without a session. */
  get apart(): GrpcClient {
    this.#apart ??= this.#make();
    return this.#apart;
  }

  get size(): number {
    return this.#all.length + (this.#apart ? 1 : 0);
  }

  /** One with room for a stream, which {@link giveBack} gives back. */
  take(): Connection {
    const room = this.#all.find(({ streams, limit, retired }) => streams < limit && !retired);
    const found = room ?? this.#further();
    found.streams += 1;
    return found;
  }

  giveBack(connection: Connection): void {
    connection.streams -= 1;
    if (connection.streams > 0) return;
    connection.limit = MAX_STREAMS;
    const index = this.#all.indexOf(connection);
    if (index < 0 || (index === 0 && !connection.retired)) return;
    this.#all.splice(index, 1);
    connection.grpc.close();
  }

  close(): void {
    for (const { grpc } of this.#all) grpc.close();
    this.#apart?.close();
  }

  #further(): Connection {
    const connection = { grpc: this.#make(), streams: 0, limit: MAX_STREAMS, retired: false };
    this.#all.push(connection);
    return connection;
  }
}
