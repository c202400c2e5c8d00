import type { AccessControl, Principal, SessionLease } from '../access/types.ts';
import { Session } from '../core/session.ts';
import type { ByteBudget, SessionLimits, TraceContext } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import type { Peers } from '../grpc/peers.ts';
import type { SessionTelemetry, Telemetry } from '../telemetry/types.ts';
import type { Wire } from '../translate/index.ts';
import type { Dialer } from '../upstream/types.ts';
import { Admission } from './admission.ts';
import { SessionDriver } from './driver.ts';
import type { FlushQueue } from './flush.ts';
import { newSessionId, type SessionRegistry } from './registry.ts';
import type { RoundRobin } from './round-robin.ts';
import type { RunningWork } from './running-work.ts';

/** Everything that a call needs, made once for a server. */
export interface Edge {
  readonly access: AccessControl;
  readonly dialer: Dialer;
  readonly telemetry: Telemetry;
  readonly wire: Wire;
  readonly registry: SessionRegistry;
  /** The other processes behind the same port. */
  readonly peers: Peers | undefined;
  /** Calls that belong to no session. */
  readonly compactions: RunningWork;
  readonly flushQueue: FlushQueue;
  readonly turns: RoundRobin;
  readonly limits: SessionLimits;
  readonly transcriptBudget: ByteBudget;
  readonly maxMessageBytes: number;
  readonly maxTurnsInFlight: number;
  readonly openTimeoutMs: number;
  readonly maxStreamAgeMs: number | undefined;
  readonly streamAgeGraceMs: number;
  readonly clock: () => number;
  readonly onBug: (error: unknown) => void;
  /** Set while the server goes down: milliseconds of the clock when it will be gone. */
  drainDeadlineMs: number | undefined;
}

export interface SessionRequest {
  readonly principal: Principal;
  readonly lease: SessionLease;
  readonly method: string;
  readonly authority: string;
  readonly model: string | undefined;
  readonly recovery: boolean;
  readonly maxLanes: number;
  readonly traceContext: TraceContext | undefined;
  readonly labels: ReadonlyMap<string, string>;
  readonly clientName: string | undefined;
  readonly clientVersion: string | undefined;
}

/** A session and what belongs to it. */
export interface EdgeSessionHandle {
  readonly id: string;
  readonly principal: Principal;
  readonly lease: SessionLease;
  readonly driver: SessionDriver;
  readonly core: Session;
  readonly telemetry: SessionTelemetry;
  readonly defaultModel: string | undefined;
}

/** Makes a session, and takes it out of the registry when it is over. */
export function createSession(edge: Edge, request: SessionRequest): EdgeSessionHandle {
  const id = newSessionId();
  const { lease, principal } = request;
  const telemetry = edge.telemetry.session({
    sessionId: id,
    tenantId: principal.tenantId,
    method: request.method,
    traceContext: request.traceContext,
    captureContent: lease.captureContent,
    serverAddress: request.authority || undefined,
    clientName: request.clientName,
    clientVersion: request.clientVersion,
    labels: request.labels,
  });
  const core = new Session(
    {
      random: Math.random,
      transcriptBudget: edge.transcriptBudget,
      limits: {
        ...edge.limits,
        maxLanes: request.maxLanes,
        // Without a transcript a lost lane can only be continued by id.
        ...(request.recovery ? {} : { maxTranscriptBytes: 0 }),
      },
    },
    edge.clock(),
  );
  const driver = new SessionDriver({
    core,
    dialer: edge.dialer,
    dial: {
      upstream: lease.upstream,
      allowed: lease.allowedUpstreams,
      tenantId: principal.tenantId,
      credential: lease.credential,
    },
    model: request.model,
    admission: new Admission(lease, lease.upstream),
    telemetry,
    flushQueue: edge.flushQueue,
    turns: edge.turns,
    clock: edge.clock,
    onBug: edge.onBug,
    onClosed: (status: StatusCode | 'OK') => {
      edge.registry.remove(id);
      telemetry.end(status);
    },
  });
  const handle = { id, principal, lease, driver, core, telemetry, defaultModel: request.model };
  edge.registry.add(handle);
  return handle;
}
