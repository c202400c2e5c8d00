import type { Principal, SessionLease } from '../access/types.ts';
import { Session } from '../core/session.ts';
import type { ByteBudget, SessionLimits, TraceContext } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import type { SessionTelemetry, Telemetry } from '../telemetry/types.ts';
import type { Dialer } from '../upstream/types.ts';
import { Admission } from './admission.ts';
import { SessionDriver } from './driver.ts';
import type { FairShare } from './fair-share.ts';
import type { FlushQueue } from './flush.ts';
import { newSessionId, type SessionRegistry } from './registry.ts';

/** What the sessions of a process share. */
export interface SessionRuntime {
  readonly dialer: Dialer;
  readonly telemetry: Telemetry;
  readonly registry: SessionRegistry;
  readonly flushQueue: FlushQueue;
  readonly fairShare: FairShare;
  readonly limits: SessionLimits;
  readonly transcriptBudget: ByteBudget;
  readonly clock: () => number;
  readonly onBug: (error: unknown) => void;
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
export function createSession(runtime: SessionRuntime, request: SessionRequest): EdgeSessionHandle {
  const id = newSessionId();
  const { lease, principal } = request;
  const telemetry = runtime.telemetry.session({
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
      transcriptBudget: runtime.transcriptBudget,
      limits: {
        ...runtime.limits,
        maxLanes: request.maxLanes,
        // Without a transcript a lost lane can only be continued by id.
        ...(request.recovery ? {} : { maxTranscriptBytes: 0 }),
      },
    },
    runtime.clock(),
  );
  const driver = new SessionDriver({
    core,
    dialer: runtime.dialer,
    dial: {
      upstream: lease.upstream,
      allowed: lease.allowedUpstreams,
      tenantId: principal.tenantId,
      credential: lease.credential,
    },
    model: request.model,
    admission: new Admission(lease, lease.upstream),
    telemetry,
    flushQueue: runtime.flushQueue,
    fairShare: runtime.fairShare,
    clock: runtime.clock,
    // Above the first the upstream is paused; what comes then is the gateway's own answers.
    maxUnreadBytes: 2 * runtime.limits.maxBufferedBytes,
    onBug: runtime.onBug,
    onClosed: (status: StatusCode | 'OK') => {
      runtime.registry.remove(id);
      telemetry.end(status);
    },
  });
  const handle = { id, principal, lease, driver, core, telemetry, defaultModel: request.model };
  runtime.registry.add(handle);
  return handle;
}
