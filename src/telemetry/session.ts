import type { Logger } from 'pino';
import type { Fact, StartTurn, SteerTurn, TraceContext } from '../core/types.ts';
import type { StatusCode } from '../errors.ts';
import { type Capture, createCapture } from './capture.ts';
import { turnExceptions } from './exceptions.ts';
import type { LogExport } from './log-export.ts';
import type { InfoLine } from './logs.ts';
import type { TelemetrySettings } from './options.ts';
import { OWN } from './own-names.ts';
import { SessionLog } from './session-log.ts';
import { type MeterShare, SessionMeters } from './session-meters.ts';
import { createSessionSpans, type SessionSpans } from './session-spans.ts';
import { ToolTimes } from './tool-times.ts';
import type { Tracing } from './tracing.ts';
import { RebuildTimes, splitTurn } from './turn-split.ts';
import type { BesideFact, SessionStart, SessionTelemetry, SessionWatcher, Watcher } from './types.ts';

export interface SessionShare {
  readonly tracing: Tracing | undefined;
  readonly meters: MeterShare;
  readonly logger: Logger;
  readonly info: InfoLine;
  /** Undefined: log records are not exported. */
  readonly logExport: LogExport | undefined;
  readonly settings: TelemetrySettings;
  readonly watcher: Watcher | undefined;
  readonly ended: (sessionId: string) => void;
}

/** Hands each fact to spans, meters, log and watcher; none of them knows of the others. */
export class ObservedSession implements SessionTelemetry {
  readonly capture: Capture | undefined;
  readonly #share: SessionShare;
  readonly #sessionId: string;
  readonly #spans: SessionSpans;
  readonly #meters: SessionMeters;
  readonly #log: SessionLog;
  readonly #watcher: SessionWatcher | undefined;
  readonly #rebuilds = new RebuildTimes();
  readonly #tools = new ToolTimes();
  #over = false;
  /** The call of a single turn ends as its turn does. */
  readonly #isOneTurn: boolean;
  #callStatus: StatusCode | 'OK' = 'OK';

  constructor(share: SessionShare, start: SessionStart) {
    const { tracing, settings } = share;
    this.#share = share;
    this.#sessionId = start.sessionId;
    this.#isOneTurn = start.method.endsWith('/CreateResponse');
    this.#spans = createSessionSpans(tracing, start, settings);
    this.#meters = new SessionMeters(share.meters, start.tenantId);
    this.#log = new SessionLog(share.logger, share.info, start, this.#spans.ids(undefined));
    this.#watcher = share.watcher?.session(start);
    const captures = settings.captureContent === 'full' && start.captureContent && tracing !== undefined;
    this.capture = captures ? createCapture(settings.maxContentBytes) : undefined;
  }

  get log(): Logger {
    return this.#log.logger;
  }

  fact(fact: Fact, added?: BesideFact): void {
    if (this.#over) return;
    if (fact.kind === 'turnEnded') {
      const { record } = fact;
      if (this.#isOneTurn) this.#callStatus = record.failed?.error.code ?? 'OK';
      const split = splitTurn(record, this.#rebuilds.take(record.turnId), added);
      const ids = this.#spans.ids(record.turnId);
      this.#log.turnEnded(record, split, ids);
      const { logExport, settings } = this.#share;
      if (logExport !== undefined && record.failed !== undefined) {
        for (const event of turnExceptions(record, ids, settings.genaiSemconv)) logExport.event(event);
      }
      this.#meters.turnEnded(record, split, this.#tools.ended(record, ids));
      this.#watcher?.turnEnded(record, split, ids, added?.attributed);
      this.#spans.turnEnded(record, split, this.capture?.take(record));
      return;
    }
    if (fact.kind === 'refused') {
      this.#log.refused(fact.request, fact.error);
      if (this.#isOneTurn) this.#callStatus = fact.error.code;
    }
    if (fact.kind === 'toolCalled') this.#tools.called(fact);
    else if (fact.kind === 'laneClosed') this.#tools.laneClosed(fact.laneId);
    this.#rebuilds.fact(fact);
    this.#meters.fact(fact, added);
    this.#spans.fact(fact);
    this.#watcher?.fact(fact);
  }

  steered(steer: SteerTurn): void {
    this.#watcher?.steered(steer);
  }

  turn(turn: StartTurn): void {
    this.capture?.turn(turn);
    this.#spans.requested(turn, this.#tools.requested(turn));
    if (turn.chain.kind === 'from') this.#watcher?.forked(turn.turnId, turn.chain.responseId);
  }

  outgoing(turnId: string | undefined): TraceContext | undefined {
    return this.#spans.outgoing(turnId);
  }

  batch(events: number, bytes: number): void {
    this.#meters.batch(events, bytes);
  }

  resumed(outcome: 'RESUMED' | 'PARTIAL' | 'GONE' | 'RECOVERED'): void {
    this.#meters.resumed(outcome);
    this.#spans.event('resumed', { [OWN.outcome]: outcome });
    this.#watcher?.resumed(outcome);
  }

  /** What the process sees of it, and its driver does not tell. */
  event(name: 'stream opened' | 'stream closed', status?: StatusCode | 'OK'): void {
    this.#callStatus = status ?? 'OK';
    this.#spans.event(name, status === undefined ? undefined : { 'rpc.status_code': status });
    this.#watcher?.stream(name === 'stream opened');
  }

  /** A session that ends well by itself ends as the last call did that it had. */
  end(own: StatusCode | 'OK'): void {
    if (this.#over) return;
    this.#over = true;
    const status = own === 'OK' ? this.#callStatus : own;
    this.#log.end(status);
    this.#meters.end(status);
    this.#spans.end(status);
    this.#watcher?.end(status);
    this.#share.ended(this.#sessionId);
  }
}
