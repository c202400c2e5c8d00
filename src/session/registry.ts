import { createHash, randomBytes } from 'node:crypto';
import type { Principal } from '../access/types.ts';
import type { EdgeSessionHandle } from './sessions.ts';

/** 256 bits: not to be guessed, whatever the rate. */
const TOKEN_BYTES = 32;

/** `[[PROCESS.]SESSION.]SECRET`: the names say where to look, and add nothing to guess. */
const TOKEN = /^(?:([\w-]+)\.)?(\w+)\.[\w-]{43}$/;

/** What a token says openly. */
export interface TokenNames {
  /** The process that issued it; undefined: it was the only one. */
  readonly process: string | undefined;
  readonly sessionId: string;
}

/** Undefined: nothing that a registry has issued. */
export function readToken(token: string): TokenNames | undefined {
  const [, process, sessionId] = TOKEN.exec(token) ?? [];
  return sessionId === undefined ? undefined : { process, sessionId };
}

/** A token that opens a session; itself it is kept nowhere. */
export interface IssuedToken {
  readonly digest: string;
  /** The seq of the first event that the client can only see after the token. */
  readonly issuedAtSeq: number;
}

interface Entry {
  readonly session: EdgeSessionHandle;
  /** Oldest first. */
  tokens: IssuedToken[];
}

/**
 * The sessions of this process, by id and by resume token.
 *
 * A token is random and only its digest is kept. The digest covers the caller as well, so a token presented by
 * somebody else is not found at all: same answer, same time, as for one that never existed. Looking up by digest
 * also leaves nothing to time, since nobody can choose the digest of a guess.
 *
 * A used token stays good until the client proves that it has its successor, by using it or by acknowledging an
 * event that was sent after it: the answer that carried the successor may be what got lost.
 */
export class SessionRegistry {
  readonly #byId = new Map<string, Entry>();
  readonly #byToken = new Map<string, Entry>();
  readonly #emptyWaiters = new Set<() => void>();

  readonly #tokenPrefix: string | undefined;

  /**
   * `tokenPrefix` tells several processes whose token it is; with one, empty or not, a token also names its session.
   * Without one the process is the only one, and a token is nothing but its secret.
   */
  constructor(tokenPrefix?: string) {
    this.#tokenPrefix = tokenPrefix;
  }

  get size(): number {
    return this.#byId.size;
  }

  /** A copy: sessions may end while the caller goes through them. */
  sessions(): readonly EdgeSessionHandle[] {
    return Array.from(this.#byId.values(), (entry) => entry.session);
  }

  get(id: string): EdgeSessionHandle | undefined {
    return this.#byId.get(id)?.session;
  }

  /** `tokens` open the session already: it was another process's before. */
  add(session: EdgeSessionHandle, tokens: readonly IssuedToken[] = []): void {
    const entry = { session, tokens: [...tokens] };
    this.#byId.set(session.id, entry);
    for (const { digest } of tokens) this.#byToken.set(digest, entry);
  }

  remove(id: string): void {
    const entry = this.#byId.get(id);
    if (entry === undefined) return;
    for (const { digest } of entry.tokens) this.#byToken.delete(digest);
    this.#byId.delete(id);
    if (this.#byId.size > 0) return;
    for (const wake of this.#emptyWaiters) wake();
    this.#emptyWaiters.clear();
  }

  /** Resolves when the last session has ended, or after `timeoutMs`. */
  async whenEmpty(timeoutMs: number): Promise<void> {
    if (this.#byId.size === 0) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#emptyWaiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#emptyWaiters.add(done);
    });
  }

  /**
   * A further token; empty if the session is over. `nextSeq` is the seq of the first event that the client can
   * only see after the token.
   */
  issueToken(id: string, nextSeq: number): string {
    const entry = this.#byId.get(id);
    if (entry === undefined) return '';
    const { token, digest } = this.makeToken(id, entry.session.principal);
    entry.tokens.push({ digest, issuedAtSeq: nextSeq });
    this.#byToken.set(digest, entry);
    // The last one used, and its successor: more are never needed.
    while (entry.tokens.length > 2) this.#dropOldest(entry);
    return token;
  }

  /** A token that opens nothing until it is added with its session. */
  makeToken(id: string, principal: Principal): { readonly token: string; readonly digest: string } {
    const secret = randomBytes(TOKEN_BYTES).toString('base64url');
    const token = this.#tokenPrefix === undefined ? secret : `${this.#tokenPrefix}${id}.${secret}`;
    return { token, digest: tokenDigest(token, principal) };
  }

  /** The tokens that open the session now, oldest first. */
  tokensOf(id: string): readonly IssuedToken[] {
    return [...(this.#byId.get(id)?.tokens ?? [])];
  }

  /** The caller's session of this token. Tokens older than the one used are void from now on. */
  claim(token: string, principal: Principal): EdgeSessionHandle | undefined {
    const digest = tokenDigest(token, principal);
    const entry = this.#byToken.get(digest);
    if (entry === undefined) return undefined;
    // A successor of the used token, if there was one, never arrived: two tokens must not stay good together.
    for (const other of entry.tokens) if (other.digest !== digest) this.#byToken.delete(other.digest);
    entry.tokens = entry.tokens.filter((other) => other.digest === digest);
    return entry.session;
  }

  /** The client has processed events up to `seq`, so it has the tokens that were sent before them. */
  acknowledged(id: string, seq: number): void {
    const entry = this.#byId.get(id);
    if (entry === undefined) return;
    while (entry.tokens.length > 1 && (entry.tokens[1]?.issuedAtSeq ?? Number.POSITIVE_INFINITY) <= seq) {
      this.#dropOldest(entry);
    }
  }

  #dropOldest(entry: Entry): void {
    const oldest = entry.tokens.shift();
    if (oldest !== undefined) this.#byToken.delete(oldest.digest);
  }
}

/** Names a session in logs and traces; not a credential. */
export function newSessionId(): string {
  return `ses_${randomBytes(16).toString('hex')}`;
}

/** What is kept of a token. It holds the caller as well: nobody else's token has the same. */
export function tokenDigest(token: string, { tenantId, subject }: Principal): string {
  // JSON keeps the parts apart, whatever characters they hold.
  return createHash('sha256')
    .update(JSON.stringify([token, tenantId, subject]))
    .digest('base64url');
}
