import type { LinkDown, LinkRoute } from '../core/types.ts';
import { failedDial, isOwnShortage, timedOutDial } from '../dialect/link-down.ts';
import { GatewayError, invalidField, type Reason } from '../errors.ts';
import type { ResourceCall } from '../ground/resource-call.ts';
import type { Secret } from '../ground/secret.ts';
import {
  Breaker,
  DEFAULT_BREAKER_FAILURES,
  DEFAULT_BREAKER_OPEN_MAX_MS,
  DEFAULT_BREAKER_OPEN_MIN_MS,
} from './breaker.ts';
import { currentCredential } from './credential.ts';
import { DialGate } from './dial-gate.ts';
import { DialedLink } from './dialed-link.ts';
import { readJsonAnswer } from './json-answer.ts';
import {
  DEFAULT_MAX_IDLE_LINKS,
  DEFAULT_MAX_IDLE_MS,
  DEFAULT_POOL_SIZE,
  LinkPool,
  type PoolKey,
} from './pool.ts';
import { redactorFor } from './redact.ts';
import { candidates } from './routing.ts';
import { notReachedFrame } from './sse-frames.ts';
import type { Dialer, DialRequest, Followed, FollowRequest, Link, LinkListener, Observe } from './types.ts';
import { Upstream, type UpstreamOptions } from './upstream.ts';

export interface DialerOptions {
  /** At least one, names unique, in order of preference. */
  readonly upstreams: readonly UpstreamOptions[];
  readonly pool?: { readonly size?: number; readonly maxIdleLinks?: number; readonly maxIdleMs?: number };
  readonly breaker?: { readonly failures?: number; readonly openMinMs?: number; readonly openMaxMs?: number };
  /** Dials of an upstream that are on their way at the same time. Default `DEFAULT_MAX_DIALING`. */
  readonly maxDialing?: number;
  /** How long a refused upgrade is remembered. Default `DEFAULT_REFUSED_UPGRADE_MS`. */
  readonly refusedUpgradeMs?: number;
  /** Failed dials before a live session is taken to a fallback. Default `DEFAULT_FAILOVER_AFTER`. */
  readonly failoverAfter?: number;
  readonly observe?: Observe;
  /** Milliseconds that never go back. */
  readonly now?: () => number;
  /** In [0, 1). */
  readonly random?: () => number;
}

/** Servers do not learn WebSocket often; a deploy that does is used ten minutes later. */
export const DEFAULT_REFUSED_UPGRADE_MS = 10 * 60_000;
/** A live session loses its upstream's memory when it moves: the first redial stays where the session was. */
export const DEFAULT_FAILOVER_AFTER = 2;

/** Above 600 a second where a handshake takes 200 ms, and less than what makes it take longer. */
export const DEFAULT_MAX_DIALING = 128;

/** Throws RangeError naming the upstream and what is wrong with it. */
export function createDialer(options: DialerOptions): Dialer {
  return new UpstreamDialer(options);
}

class UpstreamDialer implements Dialer {
  readonly #upstreams: readonly Upstream[];
  readonly #pool: LinkPool;
  readonly #breaker: Breaker;
  readonly #gate: DialGate;
  readonly #observe: Observe;
  readonly #now: () => number;
  readonly #refusedUpgradeMs: number;
  readonly #failoverAfter: number;
  /** By upstream: until when its refusal of WebSocket is believed. */
  readonly #httpUntilMs = new Map<string, number>();
  readonly #links = new Set<DialedLink>();
  #closed = false;

  constructor(options: DialerOptions) {
    const observe = options.observe ?? (() => {});
    this.#observe = observe;
    this.#upstreams = createUpstreams(options.upstreams, observe);
    this.#now = options.now ?? (() => performance.now());
    this.#refusedUpgradeMs = options.refusedUpgradeMs ?? DEFAULT_REFUSED_UPGRADE_MS;
    this.#failoverAfter = options.failoverAfter ?? DEFAULT_FAILOVER_AFTER;
    this.#pool = new LinkPool({
      size: options.pool?.size ?? DEFAULT_POOL_SIZE,
      maxIdleLinks: options.pool?.maxIdleLinks ?? DEFAULT_MAX_IDLE_LINKS,
      maxIdleMs: options.pool?.maxIdleMs ?? DEFAULT_MAX_IDLE_MS,
      observe,
    });
    this.#gate = new DialGate(options.maxDialing ?? DEFAULT_MAX_DIALING);
    this.#breaker = new Breaker({
      failures: options.breaker?.failures ?? DEFAULT_BREAKER_FAILURES,
      openMinMs: options.breaker?.openMinMs ?? DEFAULT_BREAKER_OPEN_MIN_MS,
      openMaxMs: options.breaker?.openMaxMs ?? DEFAULT_BREAKER_OPEN_MAX_MS,
      now: this.#now,
      random: options.random ?? Math.random,
      onState: (circuit, state, openMs) =>
        observe({ kind: 'breaker', ...circuitOf(circuit), circuit, state, openMs }),
    });
  }

  dial(request: DialRequest, listener: LinkListener): Link {
    const link = new DialedLink(request, listener, () => this.#links.delete(link));
    this.#links.add(link);
    const route = this.#candidates(request);
    // Never before `dial` has returned.
    queueMicrotask(() => {
      if (this.#closed) link.down(closedDialer());
      else if (route.length === 0) link.down(noRoute(request));
      else void this.#try(link, route);
    });
    return link;
  }

  async call(request: DialRequest, resource: ResourceCall, signal: AbortSignal): Promise<Uint8Array> {
    const upstream = this.#candidates(request)[0];
    if (this.#closed) throw closedDialer().error;
    if (upstream === undefined) throw noRoute(request).error;
    const credential = request.credential ?? (await currentCredential(upstream.credential));
    const key = breakerKey(upstream, request, credential);
    const refused = this.#breaker.admit(key);
    if (refused !== undefined) throw refused;
    const beganAtMs = this.#now();
    try {
      const call = upstream.call(credential, request.traceContext, resource);
      const answer = await readJsonAnswer(call, upstream.maxInboundBytes, redactorFor(credential), signal);
      this.#breaker.succeeded(key);
      return answer;
    } catch (error) {
      const failure = GatewayError.from(error);
      if (COUNTS_AS_FAILED.has(failure.reason))
        this.#failed({ key, beganAtMs }, failure, blamed(failure, request));
      else if (failure.reason === 'TURN_CANCELLED') this.#breaker.abandoned(key);
      else this.#breaker.succeeded(key);
      throw failure;
    }
  }

  follow(request: DialRequest, follow: FollowRequest): Followed {
    const upstream = this.#candidates(request)[0];
    if (this.#closed) throw closedDialer().error;
    if (upstream === undefined) throw noRoute(request).error;
    let paused = false;
    let over = false;
    let stream: Followed | undefined;
    void (async () => {
      const credential = request.credential ?? (await currentCredential(upstream.credential));
      if (over) return;
      stream = upstream.follow(credential, request.traceContext, follow);
      if (paused) stream.pause();
    })().catch(() => follow.onFrame(notReachedFrame(undefined)));
    return {
      pause: () => {
        paused = true;
        stream?.pause();
      },
      resume: () => {
        paused = false;
        stream?.resume();
      },
      abort: () => {
        over = true;
        stream?.abort();
      },
    };
  }

  route(model: string | undefined): string | undefined {
    return candidates(this.#upstreams, {
      upstream: undefined,
      model,
      current: undefined,
      allowed: undefined,
      ownKey: false,
      mayFailOver: false,
    })[0]?.name;
  }

  shedReadyLinks(): number {
    return this.#pool.shed();
  }

  retire(): void {
    this.#pool.close();
    this.#breaker.retire();
    for (const upstream of this.#upstreams) upstream.retire();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#pool.close();
    for (const link of this.#links) link.close(1001, 'going away');
    for (const upstream of this.#upstreams) upstream.close();
  }

  /**
   * A new session goes wherever something answers. A live one moves only after failed redials, and only to recover:
   * an extra or successor link elsewhere would split the session's memory.
   */
  #candidates(request: DialRequest, failures: number = request.attempt): readonly Upstream[] {
    const { purpose } = request;
    return candidates(this.#upstreams, {
      upstream: request.upstream,
      model: request.model,
      current: request.current,
      allowed: request.allowed,
      ownKey: request.credential !== undefined,
      mayFailOver: purpose === 'session' || (purpose === 'recovery' && failures >= this.#failoverAfter),
    });
  }

  /** Tries the first of the route; what is left of it follows when that fails. */
  async #try(link: DialedLink, route: readonly Upstream[]): Promise<void> {
    const [upstream, ...rest] = route;
    if (upstream === undefined) return link.failed();
    let credential: Secret | undefined;
    try {
      credential = link.request.credential ?? (await currentCredential(upstream.credential));
    } catch {
      return this.#missed(link, upstream, rest, noCredential());
    }
    if (link.ended || this.#takeReady(link, upstream, credential)) return;
    const leave = await this.#gate.enter(upstream.name, upstream.handshakeTimeoutMs);
    if (leave === undefined) {
      // Nothing was tried, and the breaker is told nothing. The next upstream may have room.
      if (!link.ended) this.#missed(link, upstream, rest, timedOutDial(upstream.handshakeTimeoutMs));
      return;
    }
    const key = breakerKey(upstream, link.request, credential);
    const refused = link.ended ? undefined : this.#breaker.admit(key);
    if (link.ended || refused !== undefined) leave();
    if (link.ended) return;
    if (refused !== undefined)
      return this.#missed(link, upstream, this.#beyond(link.request, upstream, rest), circuitOpen(refused));
    link.abandon = () => {
      leave();
      this.#breaker.abandoned(key);
    };
    this.#dial({ link, upstream, rest, credential, key, beganAtMs: this.#now(), leave });
  }

  /** An open circuit stands for more failed dials than a session that recovers would make by itself. */
  #beyond(request: DialRequest, refused: Upstream, rest: readonly Upstream[]): readonly Upstream[] {
    if (request.purpose !== 'recovery' || rest.length > 0) return rest;
    const [first, ...others] = this.#candidates(request, this.#failoverAfter);
    return first === refused ? others : [];
  }

  #dial(step: Step): void {
    const { link, upstream, rest, key, leave } = step;
    try {
      if (this.#speaksWebSocket(upstream) && link.request.overHttp !== true) this.#dialWebSocket(step);
      else this.#dialSse(step, false);
    } catch (error) {
      // Nothing was tried: a key that no header can carry.
      leave();
      this.#breaker.abandoned(key);
      this.#missed(link, upstream, rest, failedDial(error));
    }
  }

  #takeReady(link: DialedLink, upstream: Upstream, credential: Secret | undefined): boolean {
    const { attempt, overHttp } = link.request;
    if (!this.#speaksWebSocket(upstream) || attempt > 0 || overHttp === true) return false;
    const key = poolKey(upstream, link.request, credential);
    const ready = this.#pool.take(key);
    const capabilities = ready?.capabilities;
    if (ready === undefined || capabilities === undefined) return false;
    link.up(ready, capabilities, { ...routeOf(link, ready.route, credential), pooled: true });
    this.#fill(upstream, key, credential);
    return true;
  }

  #dialWebSocket(step: Step): void {
    const { link, upstream, rest, credential, key, leave } = step;
    const report = this.#dialReport(upstream, 'websocket', link.request.purpose, link.request.attempt);
    const dialed = upstream.openWebSocket(credential, link.request.traceContext, {
      ...IGNORED,
      onUp: (capabilities, route) => {
        report(undefined);
        leave();
        this.#breaker.succeeded(key);
        link.up(dialed, capabilities, routeOf(link, route, credential));
        this.#fill(upstream, poolKey(upstream, link.request, credential), credential);
      },
      onDown: (down) => {
        report(down);
        if (this.#fallsToHttp(upstream, down)) return this.#dialSse(step, true);
        leave();
        this.#failed(step, down.error, link.request.caller, down.retryAfterMs);
        this.#missed(link, upstream, rest, down);
      },
    });
    link.trying(dialed);
  }

  #dialSse(step: Step, reachable: boolean): void {
    const { link, upstream, rest, credential, key, leave } = step;
    const report = this.#dialReport(upstream, 'sse', link.request.purpose, link.request.attempt);
    const notReached = (error: GatewayError) => this.#failed({ key }, error, link.request.caller);
    const dialed = upstream.openSse(credential, reachable, notReached, {
      onUp: (capabilities, route) => {
        report(undefined);
        leave();
        this.#breaker.succeeded(key);
        link.up(dialed, capabilities, routeOf(link, route, credential));
      },
      onFrame: (frame) => link.listener.onFrame(frame),
      onBlocked: () => link.listener.onBlocked(),
      onWritable: () => link.listener.onWritable(),
      onDown: (down) => {
        if (down.during === 'open') return link.down(down);
        report(down);
        leave();
        this.#failed(step, down.error, link.request.caller, down.retryAfterMs);
        this.#missed(link, upstream, rest, down);
      },
    });
    link.trying(dialed);
  }

  #failed(
    { key, beganAtMs }: Pick<Step, 'key'> & Partial<Pick<Step, 'beganAtMs'>>,
    error: GatewayError,
    by: object | string | undefined,
    retryAfterMs = error.retryAfterMs,
  ): void {
    if (isOwnShortage(error)) this.#breaker.abandoned(key);
    else
      this.#breaker.failed(key, {
        retryAfterMs,
        by,
        reason: error.reason,
        ...(beganAtMs !== undefined && { beganAtMs }),
      });
  }

  #missed(link: DialedLink, from: Upstream, rest: readonly Upstream[], down: LinkDown): void {
    link.missed(down);
    if (link.ended) return;
    const to = rest[0];
    if (to !== undefined) this.#observe({ kind: 'failover', from: from.name, to: to.name });
    void this.#try(link, rest);
  }

  #fill(upstream: Upstream, key: PoolKey, credential: Secret | undefined): void {
    // What is dialled ahead of need waits for what is needed.
    if (this.#closed || this.#gate.isFull(upstream.name)) return;
    this.#pool.fill(key, (listener) => {
      const report = this.#dialReport(upstream, 'websocket', 'pool', 0);
      return upstream.openWebSocket(credential, undefined, {
        ...listener,
        onUp: (capabilities, route) => {
          report(undefined);
          listener.onUp(capabilities, route);
        },
        onDown: (down) => {
          if (down.during === 'dial') report(down);
          listener.onDown(down);
        },
      });
    });
  }

  #fallsToHttp(upstream: Upstream, { httpStatus }: LinkDown): boolean {
    if (upstream.transport !== 'auto' || httpStatus === undefined) return false;
    if (!upstream.facts.noUpgradeStatuses.has(httpStatus)) return false;
    this.#httpUntilMs.set(upstream.name, this.#now() + this.#refusedUpgradeMs);
    this.#observe({
      kind: 'sseFallback',
      upstream: upstream.name,
      httpStatus,
      forMs: this.#refusedUpgradeMs,
    });
    return true;
  }

  #speaksWebSocket({ name, transport }: Upstream): boolean {
    if (transport !== 'auto') return transport === 'websocket';
    return (this.#httpUntilMs.get(name) ?? Number.NEGATIVE_INFINITY) <= this.#now();
  }

  #dialReport(
    { name, host }: Upstream,
    transport: 'websocket' | 'sse',
    purpose: DialRequest['purpose'] | 'pool',
    attempt: number,
  ): (down: LinkDown | undefined) => void {
    const startedAt = performance.now();
    return (down) => {
      const durationMs = performance.now() - startedAt;
      const failure = down && {
        reason: down.error.reason,
        httpStatus: down.httpStatus,
        errno: down.error.metadata['cause'],
      };
      this.#observe({ kind: 'dial', upstream: name, host, transport, purpose, attempt, durationMs, failure });
    };
  }
}

/** One upstream of a dial's route. */
interface Step {
  readonly link: DialedLink;
  readonly upstream: Upstream;
  readonly rest: readonly Upstream[];
  readonly credential: Secret | undefined;
  readonly key: string;
  /** Of `now`. */
  readonly beganAtMs: number;
  /** Its place among the upstream's dials is free. */
  readonly leave: () => void;
}

/** During a WebSocket dial nothing but its outcome can come. */
const IGNORED = { onFrame: () => {}, onBlocked: () => {}, onWritable: () => {} };

function createUpstreams(options: readonly UpstreamOptions[], observe: Observe): readonly Upstream[] {
  const names = new Set(options.map(({ name }) => name));
  if (options.length === 0) throw new RangeError('expected at least one upstream');
  if (names.size < options.length) throw new RangeError('expected upstreams with different names');
  return options.map((each) => {
    const unknown = each.fallback?.find((name) => !names.has(name));
    if (unknown !== undefined) throw new RangeError(`upstream ${each.name}: unknown fallback ${unknown}`);
    try {
      return new Upstream(each, observe);
    } catch (error) {
      throw new RangeError(`upstream ${each.name}: ${error instanceof Error ? error.message : 'invalid'}`);
    }
  });
}

function routeOf({ request }: DialedLink, route: LinkRoute, credential: Secret | undefined): LinkRoute {
  const { accountScope } = request;
  if (accountScope === undefined || credential === undefined) return route;
  return { ...route, account: credential.fingerprintIn(accountScope) };
}

function poolKey({ name }: Upstream, { tenantId }: DialRequest, credential: Secret | undefined): PoolKey {
  return { upstream: name, tenantId, fingerprint: credential?.fingerprint };
}

function breakerKey({ name }: Upstream, request: DialRequest, credential: Secret | undefined): string {
  const whose = request.credential === undefined ? 'own' : 'other';
  return JSON.stringify([name, whose, credential?.fingerprint ?? null]);
}

function circuitOf(key: string): { readonly upstream: string; readonly credential: 'own' | 'other' } {
  const [upstream, whose] = JSON.parse(key) as readonly unknown[];
  return { upstream: String(upstream), credential: whose === 'own' ? 'own' : 'other' };
}

/** Ends of a call after which the upstream is not asked for a while. */
const COUNTS_AS_FAILED: ReadonlySet<Reason> = new Set([
  'UPSTREAM_UNAVAILABLE',
  'UPSTREAM_ERROR',
  'UPSTREAM_AUTH',
]);

/**
 * An answer of HTTP 500 may be the request's own doing: however many of them one tenant asks for, they are one failure, and
 * no outage for the others.
 */
function blamed({ reason, metadata }: GatewayError, { tenantId }: DialRequest): string | undefined {
  return reason !== 'UPSTREAM_AUTH' && metadata['http_status'] !== undefined ? tenantId : undefined;
}

function noRoute({ upstream }: DialRequest): LinkDown {
  const error =
    upstream === undefined
      ? new GatewayError('MODEL_NOT_ALLOWED', 'no upstream serves this model')
      : invalidField('upstream', JSON.stringify(upstream), 'the name of a configured upstream');
  return { during: 'dial', error, permanent: true };
}

function noCredential(): LinkDown {
  const error = new GatewayError('UPSTREAM_AUTH', 'the credential of this upstream could not be read');
  return { during: 'dial', error, permanent: false };
}

function circuitOpen(error: GatewayError): LinkDown {
  const { retryAfterMs } = error;
  // A key that was refused is not taken a moment later either.
  const permanent = error.reason === 'UPSTREAM_AUTH';
  return { during: 'dial', error, permanent, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
}

function closedDialer(): LinkDown {
  return {
    during: 'dial',
    error: new GatewayError('DRAINING', 'the gateway is going down'),
    permanent: true,
  };
}
