import type { Principal, SessionLease } from '../access/types.ts';
import type { Heard } from '../core/restore.ts';
import { Session } from '../core/session.ts';
import type {
  ByteBudget,
  SessionLimits,
  SessionOptions,
  TraceContext,
  UpstreamFrame,
} from '../core/types.ts';
import { formatMoney, parseMoney } from '../ground/money.ts';
import type { Sealer } from '../store/types.ts';
import type { SessionTelemetry, Telemetry } from '../telemetry/types.ts';
import type { Dialer } from '../upstream/types.ts';
import { Admission } from './admission.ts';
import { type Budget, SessionBudget } from './budget.ts';
import { SessionDriver } from './driver.ts';
import type { Durability, JournalSession, TakenJournal } from './durability.ts';
import type { FairShare } from './fair-share.ts';
import type { FlushQueue } from './flush.ts';
import type { JournalWriter } from './journal-writer.ts';
import type { SessionOpening, SessionRecord } from './record.ts';
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
  /** Undefined: sessions end with this process. */
  readonly durability?: Durability | undefined;
  /** The upstream's frame from its JSON, as a record has it. */
  readonly frameOf: (json: string) => UpstreamFrame;
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
  /** The upstream that the client named; the lease may say another. */
  readonly namedUpstream: string | undefined;
  readonly budget?: Budget | undefined;
  /** A background response does not run over a WebSocket. Default false. */
  readonly overHttp?: boolean;
}

/** A session that another process held, and the client that comes back to it. */
export interface TakenSession {
  readonly id: string;
  readonly record: SessionRecord;
  readonly journal: TakenJournal;
  readonly heard: Heard;
  /** When its client asked for it here. */
  readonly sinceMs: number;
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
  /** Undefined: nothing is written down. */
  readonly journal: JournalWriter | undefined;
  readonly opening: SessionOpening;
}

/** A new session with its journal begun. */
export async function openSession(
  runtime: SessionRuntime,
  request: SessionRequest,
): Promise<EdgeSessionHandle> {
  const { durability } = runtime;
  if (durability === undefined) return createSession(runtime, request);
  const id = newSessionId();
  const sealer = await durability.sealerFor(request.principal.tenantId, id);
  const origin: Origin = sealer === 'away' ? { kind: 'away' } : { kind: 'new', sealer };
  return assemble(runtime, request, id, origin);
}

/** A session that goes on here. */
export function takeSession(
  runtime: SessionRuntime,
  request: Pick<SessionRequest, 'principal' | 'lease' | 'authority' | 'traceContext'>,
  taken: TakenSession,
): EdgeSessionHandle {
  const { opening } = taken.record;
  return assemble(
    runtime,
    {
      ...request,
      method: opening.method,
      model: opening.model,
      recovery: opening.recovery,
      maxLanes: runtime.limits.maxLanes,
      labels: new Map(opening.labels),
      clientName: opening.clientName,
      clientVersion: opening.clientVersion,
      namedUpstream: opening.upstream,
      budget: opening.budget && budgetOf(opening.budget),
    },
    taken.id,
    { kind: 'taken', taken },
  );
}

/** Writes what a client is about to be told: the tokens that open its session. */
export async function recordTokens(
  { durability, registry }: SessionRuntime,
  { id, journal, driver, opening }: EdgeSessionHandle,
): Promise<void> {
  if (durability === undefined || journal === undefined) return;
  const tokens = registry.tokensOf(id);
  const isNew = !journal.begun;
  const entry = isNew
    ? ({ kind: 'open', opening, owner: durability.owner, tokens } as const)
    : ({ kind: 'token', tokens } as const);
  const written = await durability.promise(journal.append(entry, { create: isNew }));
  // A session of which nothing is known is not durable, and its client is told so.
  if (!written && isNew) {
    journal.beginLost();
    driver.feed({ kind: 'journalLost' });
  }
}

type Origin =
  | { readonly kind: 'new'; readonly sealer: Sealer | undefined }
  | { readonly kind: 'away' }
  | { readonly kind: 'taken'; readonly taken: TakenSession };

/** A session of which nothing is written down. */
export function createSession(runtime: SessionRuntime, request: SessionRequest): EdgeSessionHandle {
  return assemble(runtime, request, newSessionId(), undefined);
}

/** Makes a session, and takes it out of the registry when it is over. */
function assemble(
  runtime: SessionRuntime,
  request: SessionRequest,
  id: string,
  origin: Origin | undefined,
): EdgeSessionHandle {
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
    takenOverSinceMs: origin?.kind === 'taken' ? origin.taken.sinceMs : undefined,
  });
  const { durability } = runtime;
  const taken = origin?.kind === 'taken' ? origin.taken : undefined;
  const budget = request.budget && new SessionBudget(request.budget, taken?.record.state.spent);
  const options: SessionOptions = {
    random: Math.random,
    transcriptBudget: runtime.transcriptBudget,
    limits: {
      ...runtime.limits,
      maxLanes: request.maxLanes,
      // Without a transcript a lost lane can only be continued by id.
      ...(request.recovery ? {} : { maxTranscriptBytes: 0 }),
    },
    journal: durability &&
      origin && {
        keepsContent: durability.keepsContent,
        open: origin.kind !== 'away',
        gateTimeoutMs: durability.gateTimeoutMs,
      },
    // Where nothing is priced or counted, nothing is worked out.
    account:
      budget === undefined && lease.currency === undefined
        ? undefined
        : (record) => admission.account(record),
  };
  const admission = new Admission(lease, lease.upstream, budget, ({ name, used, limit }) =>
    driver.feed({
      kind: 'notify',
      notice: { kind: 'budget_low', reason: name, detail: `${used} of ${limit} ${name} are used` },
    }),
  );
  const core =
    taken === undefined
      ? new Session(options, runtime.clock())
      : Session.restore(
          {
            state: taken.record.state,
            heard: taken.heard,
            fence: taken.journal.fence,
            frameOf: runtime.frameOf,
          },
          options,
          runtime.clock(),
        );
  const opening = openingOf(request);
  const journal =
    durability &&
    origin &&
    holdJournal(
      durability,
      origin,
      { id, opening },
      () => runtime.registry.tokensOf(id),
      (report) => driver.feed(report),
    );
  const driver: SessionDriver = new SessionDriver({
    core,
    journal,
    dialer: runtime.dialer,
    dial: {
      upstream: lease.upstream,
      allowed: lease.allowedUpstreams,
      tenantId: principal.tenantId,
      credential: lease.credential,
      // What the record says of accounts is compared by whoever goes on with the session.
      accountScope: origin && id,
      overHttp: request.overHttp === true,
    },
    current: taken?.record.state.nodes.at(-1)?.upstream,
    model: request.model,
    admission,
    telemetry,
    flushQueue: runtime.flushQueue,
    fairShare: runtime.fairShare,
    clock: runtime.clock,
    // Above the first the upstream is paused; what comes then is the gateway's own answers.
    maxUnreadBytes: 2 * runtime.limits.maxBufferedBytes,
    onBug: runtime.onBug,
    onClosed: (status, record) => {
      runtime.registry.remove(id);
      durability?.release(id, record);
      telemetry.end(status);
    },
  });
  const handle = {
    id,
    principal,
    lease,
    driver,
    core,
    telemetry,
    defaultModel: request.model,
    journal,
    opening,
  };
  runtime.registry.add(handle, taken?.record.tokens);
  return handle;
}

function holdJournal(
  durability: Durability,
  origin: Origin,
  session: Pick<JournalSession, 'id' | 'opening'>,
  tokens: JournalSession['tokens'],
  report: JournalSession['report'],
): JournalWriter {
  const whole = { ...session, tokens, report };
  switch (origin.kind) {
    case 'new':
      return durability.hold(whole, 'new', origin.sealer);
    case 'away':
      return durability.hold(whole, 'away');
    case 'taken':
      return durability.hold(whole, origin.taken.journal);
  }
}

function openingOf({ principal, labels, ...request }: SessionRequest): SessionOpening {
  return {
    tenantId: principal.tenantId,
    subject: principal.subject,
    method: request.method,
    model: request.model,
    upstream: request.namedUpstream,
    recovery: request.recovery,
    labels: [...labels],
    clientName: request.clientName,
    clientVersion: request.clientVersion,
    ...(request.budget !== undefined && { budget: savedBudget(request.budget) }),
  };
}

function savedBudget({ turns, tokens, money }: Budget): NonNullable<SessionOpening['budget']> {
  return { turns, tokens, money: money === undefined ? undefined : formatMoney(money) };
}

function budgetOf({ turns, tokens, money }: NonNullable<SessionOpening['budget']>): Budget {
  return { turns, tokens, money: money === undefined ? undefined : parseMoney(money) };
}
