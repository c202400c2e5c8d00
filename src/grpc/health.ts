import {
  type Server,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { serviceDefinition } from './service-definition.ts';

export type ServingStatus = 'SERVING' | 'NOT_SERVING';

interface CheckRequest {
  readonly service: string;
}

interface CheckResponse {
  readonly status: ServingStatus | 'SERVICE_UNKNOWN';
}

interface ListResponse {
  readonly statuses: Readonly<Record<string, CheckResponse>>;
}

type Watcher = ServerWritableStream<CheckRequest, CheckResponse>;

/**
 * grpc.health.v1. The package grpc-health-check does the same, and reads its .proto file with another parser at every
 * start, which takes a twentieth of a second and 12 MB.
 */
export class HealthService {
  /** By service; the empty name is the whole server. */
  readonly #statuses: Map<string, ServingStatus>;
  readonly #watchers = new Map<Watcher, string>();

  constructor(services: readonly string[]) {
    this.#statuses = new Map(services.map((name) => [name, 'SERVING']));
  }

  /** Of every service. Whoever watches is told what has changed. */
  set(serving: ServingStatus): void {
    const changed = new Set<string>();
    for (const [name, known] of this.#statuses) if (known !== serving) changed.add(name);
    for (const name of changed) this.#statuses.set(name, serving);
    for (const [watcher, name] of this.#watchers) if (changed.has(name)) watcher.write({ status: serving });
  }

  addTo(server: Server): void {
    server.addService(serviceDefinition('grpc.health.v1.Health'), {
      Check: (
        { request }: ServerUnaryCall<CheckRequest, CheckResponse>,
        done: sendUnaryData<CheckResponse>,
      ) => {
        const known = this.#statuses.get(request.service);
        if (known !== undefined) done(null, { status: known });
        else done({ code: status.NOT_FOUND, details: 'no such service' });
      },
      Watch: (call: Watcher) => {
        const name = call.request.service;
        this.#watchers.set(call, name);
        for (const end of ['cancelled', 'close']) call.once(end, () => this.#watchers.delete(call));
        call.write({ status: this.#statuses.get(name) ?? 'SERVICE_UNKNOWN' });
      },
      List: (_call: ServerUnaryCall<object, ListResponse>, done: sendUnaryData<ListResponse>) => {
        const statuses = [...this.#statuses].map(([name, known]) => [name, { status: known }] as const);
        done(null, { statuses: Object.fromEntries(statuses) });
      },
    });
  }
}
