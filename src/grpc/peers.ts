import { X509Certificate } from 'node:crypto';
import { type ChannelCredentials, Client, credentials, Metadata, ServerCredentials } from '@grpc/grpc-js';
import { readToken } from '../session/registry.ts';
import { RunningWork } from '../session/running-work.ts';
import type { RpcCall } from './call.ts';
import { type Answer, carry } from './carry.ts';
import { type Hop, readHop, type Secrets, writeHop } from './hop.ts';
import { type PeerCredentials, peerCredentials, sharesName } from './peer-tls.ts';
import type { TlsOptions } from './tls.ts';

/** A process that runs answers in milliseconds; a full event loop may take a second or two. */
const DEFAULT_OPENED_TIMEOUT_MS = 10_000;
/** Ids come from tokens, and tokens from callers. */
const MAX_UNREACHABLE = 1_000;

/** Answers that hold for everybody who waits for the same process. */
const IS_ABSENT: ReadonlySet<Answer | 'unknown_address'> = new Set([
  'unreachable',
  'silent',
  'unknown_address',
]);

export interface PeersOptions {
  /** Unique among all processes that may ever share a token's prefix: letters, digits and "-". */
  readonly id: string;
  /** Where to find another process; undefined: nobody knows. Ids come from tokens, and tokens from callers. */
  readonly find: (id: string) => PeerRoute | undefined | Promise<PeerRoute | undefined>;
  /** Where this process listens for the others: `unix:` paths, or `host:port`. */
  readonly listen: readonly string[];
  /** Sign what is carried. Known to the processes of this gateway only. */
  readonly secrets: Secrets;
  /** For connections over TCP. Without it they are plain. */
  readonly tls?: PeerTlsOptions;
  /** What the owner of a session may take to answer a resume. Milliseconds, default 10,000. */
  readonly openedTimeoutMs?: number;
  /**
   * How long a process that is not there is not tried again: when one dies, all of its clients come at once. Only where
   * another process can go on with its sessions. Milliseconds, default 0.
   */
  readonly unreachableMs?: number;
  /** Each resume that was carried on, or was not, for metrics. */
  readonly onForward?: (answer: Answer) => void;
}

export interface PeerTlsOptions extends TlsOptions {
  readonly clientCaFile: string;
  /** A certificate is proof enough: `secrets` are not known on other machines. */
  readonly withoutSecret: boolean;
}

export interface PeerRoute {
  /** As grpc-js takes it: `unix:` and a path, or `host:port`. */
  readonly address: string;
  /** On this machine, behind the same port. Such processes start and end together. */
  readonly local: boolean;
}

/** Rejects when a certificate cannot be used. */
export async function openPeers(options: PeersOptions): Promise<Peers> {
  return new Peers(options, options.tls === undefined ? undefined : await peerCredentials(options.tls));
}

/**
 * The other processes of this gateway, on this machine or others. A connection reaches any of them, and a session lives
 * in one: a token says in which, and a stream that resumes at another is carried over there, message by message.
 */
export class Peers {
  /** Streams that are carried for another process. */
  readonly carried = new RunningWork();
  /** Of the last listener, once it listens. */
  port: number | undefined;
  readonly #options: PeersOptions;
  readonly #tls: PeerCredentials | undefined;
  readonly #clients = new Map<string, Client>();
  /** Carried to other machines. */
  readonly #away = new Set<RpcCall>();
  /** The first of the resumes that wait for a process, by id. */
  readonly #asking = new Map<string, Promise<Answer | 'unknown_address'>>();
  /** Until when, by id; of `performance.now()`. */
  readonly #unreachable = new Map<string, number>();

  constructor(options: PeersOptions, tls: PeerCredentials | undefined) {
    this.#options = options;
    this.#tls = tls;
  }

  get id(): string {
    return this.#options.id;
  }

  get listen(): readonly string[] {
    return this.#options.listen;
  }

  /** No certificate fits a socket, which only processes of this gateway can reach. */
  serverCredentials(address: string): ServerCredentials {
    if (this.#tls === undefined || address.startsWith('unix:')) return ServerCredentials.createInsecure();
    return this.#tls.server;
  }

  /** Stands before the resume tokens of this process. */
  get tokenPrefix(): string {
    return `${this.#options.id}.`;
  }

  /** Whose token it is; undefined: ours, or none of a cluster. */
  otherOwnerOf(token: string): string | undefined {
    const id = readToken(token)?.process;
    return id === this.#options.id ? undefined : id;
  }

  /** What another process says about a stream that it carries; undefined: it is no process of ours. */
  accept(call: RpcCall, open: Uint8Array): Hop | undefined {
    const read = readHop(call.metadata, open, this.#options.secrets);
    if (read === undefined) return undefined;
    const certificate = call.peerCertificate;
    if (certificate !== undefined) {
      const names = new X509Certificate(certificate).subjectAltName;
      if (this.#tls === undefined || !sharesName(names, this.#tls.names())) return undefined;
      if (this.#options.tls?.withoutSecret === true) return read.hop;
    }
    return read.signed ? read.hop : undefined;
  }

  /**
   * Carries the call over to another process. Resolves with false, and nothing has happened, when that process cannot
   * be found or reached, or does not have the session. A client that leaves before is done with: true.
   */
  async forward(call: RpcCall, hop: Hop, open: Uint8Array, only: 'local' | 'any' = 'any'): Promise<boolean> {
    if (hop.to === this.#options.id || this.#isUnreachable(hop.to)) return false;
    const asked = this.#asking.get(hop.to);
    if (asked !== undefined && IS_ABSENT.has(await asked)) return call.over;
    const answering = this.#ask(call, hop, open, only);
    if (only === 'any') this.#shareAnswer(hop.to, answering);
    const answer = await answering;
    return answer === 'taken' || answer === 'unheard';
  }

  async #ask(
    call: RpcCall,
    hop: Hop,
    open: Uint8Array,
    only: 'local' | 'any',
  ): Promise<Answer | 'unknown_address'> {
    const route = await this.#options.find(hop.to);
    if (route === undefined || (only === 'local' && !route.local)) return 'unknown_address';
    // It may have left meanwhile.
    if (call.over) return 'unheard';
    const metadata = new Metadata();
    writeHop(metadata, hop, open, this.#options.secrets);
    const stream = this.#client(route).makeBidiStreamRequest(
      `/${call.method}`,
      (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      (bytes: Buffer) => bytes,
      metadata,
    );
    const { answered, over } = carry(
      call,
      stream,
      open,
      this.#options.openedTimeoutMs ?? DEFAULT_OPENED_TIMEOUT_MS,
    );
    this.carried.add(over);
    const answer = await answered;
    this.#options.onForward?.(answer);
    if (answer === 'unreachable' || answer === 'silent' || answer === 'unheard') this.#forget(route.address);
    if (answer === 'unreachable') this.#rememberUnreachable(hop.to);
    if (answer === 'taken' && !route.local) {
      this.#away.add(call);
      void over.finally(() => this.#away.delete(call));
    }
    return answer;
  }

  /** This process goes, their sessions stay: tells the clients of streams that are carried to other machines. */
  sendAway(goAway: Uint8Array): void {
    for (const call of this.#away) call.write(goAway);
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  /** Until it has answered one resume, or has not, others to the same process wait for that. */
  #shareAnswer(id: string, answering: Promise<Answer | 'unknown_address'>): void {
    if (this.#options.unreachableMs === undefined || this.#asking.has(id)) return;
    this.#asking.set(id, answering);
    const over = () => this.#asking.delete(id);
    answering.then(over, over);
  }

  #isUnreachable(id: string): boolean {
    const untilMs = this.#unreachable.get(id);
    if (untilMs === undefined) return false;
    if (performance.now() < untilMs) return true;
    this.#unreachable.delete(id);
    return false;
  }

  #rememberUnreachable(id: string): void {
    const { unreachableMs = 0 } = this.#options;
    if (unreachableMs === 0) return;
    this.#unreachable.delete(id);
    this.#unreachable.set(id, performance.now() + unreachableMs);
    const [oldest] = this.#unreachable.keys();
    if (this.#unreachable.size > MAX_UNREACHABLE && oldest !== undefined) this.#unreachable.delete(oldest);
  }

  /** Addresses are given again, and a connection that failed once would have to be waited for. */
  #forget(address: string): void {
    this.#clients.get(address)?.close();
    this.#clients.delete(address);
  }

  #client({ address }: PeerRoute): Client {
    const known = this.#clients.get(address);
    if (known !== undefined) return known;
    const client = new Client(address, this.#credentials(address), {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.enable_retries': 0,
      ...(this.#tls === undefined ? {} : { 'grpc.ssl_target_name_override': this.#tls.serverName() }),
    });
    this.#clients.set(address, client);
    return client;
  }

  #credentials(address: string): ChannelCredentials {
    if (this.#tls === undefined || address.startsWith('unix:')) return credentials.createInsecure();
    return this.#tls.client;
  }
}
