import type {
  AccessControl,
  CallerFacts,
  Principal,
  SessionLease,
  TurnAdmission,
} from '../../src/access/types.ts';
import type { Fact, TurnRecord, Usage } from '../../src/core/types.ts';
import { GatewayError, type StatusCode } from '../../src/errors.ts';
import type {
  CallRefusal,
  HeldResume,
  SessionStart,
  SessionTelemetry,
  Telemetry,
} from '../../src/telemetry/types.ts';

/** Lets everybody in as one tenant, and remembers what it was asked. Override a method to refuse. */
export class OpenAccess implements AccessControl {
  readonly callers: CallerFacts[] = [];
  readonly admitted: TurnAdmission[] = [];
  readonly settled: TurnRecord[] = [];
  readonly late: Usage[] = [];
  readonly owned: string[] = [];
  abandoned = 0;
  openSessions = 0;
  openLanes = 0;
  overloadError: GatewayError | undefined;
  /** Throws to refuse. */
  onTurn: (turn: TurnAdmission) => void = () => {};
  onSteer: () => void = () => {};
  onSession: () => void = () => {};

  /** The tenant is whatever the bearer token says, so that tests can be two callers. */
  async authenticate(caller: CallerFacts): Promise<Principal> {
    this.callers.push(caller);
    const name = caller.authorization?.replace(/^Bearer /, '') ?? 'anonymous';
    if (name === 'wrong') throw new GatewayError('UNAUTHENTICATED', 'unknown credentials');
    return { tenantId: name, subject: name };
  }

  allowsModel: (model: string) => boolean = () => true;

  reserveSession(): undefined {}

  admitSession(principal: Principal, request: { readonly upstream: string | undefined }): SessionLease {
    this.onSession();
    this.openSessions += 1;
    let released = false;
    return {
      principal,
      credential: undefined,
      upstream: request.upstream,
      allowedUpstreams: undefined,
      renew: () => {},
      captureContent: false,
      currency: undefined,
      useOf: () => ({ use: undefined, cost: undefined, unpriced: undefined }),
      costOf: () => undefined,
      guess: () => ({ tokens: 0, money: 0n }),
      takeLow: () => [],
      reserveTurn: () => undefined,
      admitTurn: (turn) => {
        this.onTurn(turn);
        this.admitted.push(turn);
        return {
          settle: (record) => void this.settled.push(record),
          abandon: () => {
            this.abandoned += 1;
          },
          holdMore: () => ({ tokens: 0, money: 0n }),
          lateUsage: (usage) => {
            this.late.push(usage);
            return { use: { tokens: 0, money: 0n }, cost: undefined, unpriced: undefined };
          },
        };
      },
      admitInput: () => {
        this.onSteer();
        return { tokens: 0, money: 0n };
      },
      *lookSteps() {
        yield;
        return { stored: new Map(), models: [] };
      },
      allowsModel: (model) => this.allowsModel(model),
      admitLane: () => {
        this.openLanes += 1;
      },
      laneClosed: () => {
        this.openLanes -= 1;
      },
      ownResponse: (id) => this.owned.push(id),
      ownItem: () => {},
      usedTokens: (usage) => {
        this.late.push(usage);
        return { tokens: 0, money: 0n };
      },
      release: () => {
        if (released) return;
        released = true;
        this.openSessions -= 1;
      },
    };
  }

  overload(): GatewayError | undefined {
    return this.overloadError;
  }

  async close(): Promise<void> {}
}

/** Remembers everything. */
export class RecordedTelemetry implements Telemetry {
  readonly sessions: { start: SessionStart; facts: Fact[]; end: StatusCode | 'OK' | undefined }[] = [];
  readonly rpcs: { method: string; status: StatusCode | 'OK' }[] = [];
  readonly streams: { sessionId: string; status: StatusCode | 'OK' | undefined }[] = [];
  readonly resumes: string[] = [];
  batches = 0;
  events = 0;

  session(start: SessionStart): SessionTelemetry {
    const record: (typeof this.sessions)[number] = { start, facts: [], end: undefined };
    this.sessions.push(record);
    return {
      fact: (fact) => record.facts.push(fact),
      steered: () => {},
      outgoing: () => undefined,
      batch: (events) => {
        this.batches += 1;
        this.events += events;
      },
      resumed: (outcome) => this.resumes.push(outcome),
      end: (status) => {
        record.end = status;
      },
    };
  }

  streamOpened(sessionId: string): void {
    this.streams.push({ sessionId, status: undefined });
  }

  streamClosed(sessionId: string, status: StatusCode | 'OK'): void {
    const stream = this.streams.find((one) => one.sessionId === sessionId && one.status === undefined);
    if (stream !== undefined) stream.status = status;
  }

  rpcEnded(method: string, status: StatusCode | 'OK'): void {
    this.rpcs.push({ method, status });
  }

  readonly refusals: CallRefusal[] = [];

  callRefused(refusal: CallRefusal): void {
    this.refusals.push(refusal);
  }

  readonly heldResumes: HeldResume[] = [];

  resumeHeldBack(resume: HeldResume): void {
    this.heldResumes.push(resume);
  }

  async shutdown(): Promise<void> {}
}
