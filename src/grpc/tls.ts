import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { experimental, ServerCredentials } from '@grpc/grpc-js';

/** Certificates change about every two months; a minute of delay is nothing, and a few file reads neither. */
const RELOAD_INTERVAL_MS = 60_000;

export interface TlsOptions {
  /** PEM chain of the server. */
  readonly certificateFile: string;
  readonly privateKeyFile: string;
  /** PEM of the authorities whose clients may come. Set: every client needs a certificate (mTLS). */
  readonly clientCaFile?: string | undefined;
  /** How often the files are looked at for a change. Milliseconds, default 60,000. */
  readonly reloadIntervalMs?: number | undefined;
  /** A change that cannot be used; the certificate in use stays. */
  readonly onReloadError?: ((error: unknown) => void) | undefined;
}

/**
 * Credentials that follow the files: a renewed certificate serves new connections without a restart.
 * Rejects when the files are missing or do not fit together, so that a mistake shows before the port opens.
 */
export async function serverCredentials(tls: TlsOptions | undefined): Promise<ServerCredentials> {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const files = await openCertificates(tls);
  const mutual = tls.clientCaFile !== undefined;
  return experimental.createCertificateProviderServerCredentials(files, mutual ? files : null, mutual);
}

/** Certificates that follow their files. `section` and `caField` are what errors call them. Rejects as above. */
export async function openCertificates(
  tls: TlsOptions,
  section = 'tls',
  caField = 'client_ca_file',
): Promise<CertificateFiles> {
  const read = () => load(tls, section, caField);
  return new CertificateFiles(tls, await read(), read);
}

interface Loaded {
  readonly identity: experimental.IdentityCertificateUpdate;
  readonly ca: experimental.CaCertificateUpdate | null;
}

async function load(tls: TlsFiles, section: string, caField: string): Promise<Loaded> {
  const [certificate, privateKey, ca] = await Promise.all([
    readFile(tls.certificateFile).catch(asError),
    readFile(tls.privateKeyFile).catch(asError),
    tls.clientCaFile === undefined ? undefined : readFile(tls.clientCaFile).catch(asError),
  ]);
  const pems = { certificate, privateKey, ca };
  const problems = problemsOf(pems, tls, section, caField);
  if (problems.length > 0 || !isRead(pems)) {
    // The operator's mistake: the start ends with a line that says it.
    const [first] = problems;
    throw new RangeError(problems.map(({ field, file, why }) => `${field} (${file}) ${why}`).join('; '), {
      cause: first?.cause,
    });
  }
  return {
    identity: { certificate: pems.certificate, privateKey: pems.privateKey },
    ca: pems.ca === undefined ? null : { caCertificate: pems.ca },
  };
}

export type TlsFiles = Pick<TlsOptions, 'certificateFile' | 'privateKeyFile' | 'clientCaFile'>;

export interface CertificateProblem {
  /** As the configuration has it: `tls.key_file`. */
  readonly field: string;
  readonly file: string;
  /** `cannot be used: …`, or what does not fit together. */
  readonly why: string;
  readonly cause?: unknown;
}

/** Everything that keeps the files from being used. `section` and `caField` are what the configuration calls them. */
export function certificateProblems(
  tls: TlsFiles,
  section = 'tls',
  caField = 'client_ca_file',
): readonly CertificateProblem[] {
  const read = (file: string): Pem => {
    try {
      return readFileSync(file);
    } catch (error) {
      return asError(error);
    }
  };
  const pems = {
    certificate: read(tls.certificateFile),
    privateKey: read(tls.privateKeyFile),
    ca: tls.clientCaFile === undefined ? undefined : read(tls.clientCaFile),
  };
  return problemsOf(pems, tls, section, caField);
}

/** An error: the file could not be read. */
type Pem = Buffer | Error;

interface Pems {
  readonly certificate: Pem;
  readonly privateKey: Pem;
  readonly ca: Pem | undefined;
}

function isRead(pems: Pems): pems is { certificate: Buffer; privateKey: Buffer; ca: Buffer | undefined } {
  return !Object.values(pems).some((pem) => pem instanceof Error);
}

function problemsOf(
  { certificate, privateKey, ca }: Pems,
  files: TlsFiles,
  section: string,
  caField: string,
): CertificateProblem[] {
  const problems: CertificateProblem[] = [];
  const take = <T>(name: string, file: string, pem: Pem, make: (pem: Buffer) => T): T | undefined => {
    try {
      if (pem instanceof Error) throw pem;
      return make(pem);
    } catch (cause) {
      const why = `cannot be used: ${asError(cause).message}`;
      problems.push({ field: `${section}.${name}`, file, why, cause });
      return undefined;
    }
  };
  const parsed = take('cert_file', files.certificateFile, certificate, (pem) => new X509Certificate(pem));
  const key = take('key_file', files.privateKeyFile, privateKey, createPrivateKey);
  if (files.clientCaFile !== undefined && ca !== undefined) {
    // A TLS context takes anything for the authorities, and then trusts none.
    take(caField, files.clientCaFile, ca, (pem) => new X509Certificate(pem));
  }
  if (parsed === undefined || key === undefined) return problems;
  // As is the case while the two are being replaced. A TLS context takes a key of another kind than the certificate's.
  if (!parsed.checkPrivateKey(key)) {
    const why = `is not the key of ${section}.cert_file (${files.certificateFile})`;
    problems.push({ field: `${section}.key_file`, file: files.privateKeyFile, why });
    return problems;
  }
  // The rest of the chain, and what a certificate of today has to have, such as a long enough key.
  take('cert_file', files.certificateFile, certificate, (cert) =>
    createSecureContext({ cert, key: privateKey as Buffer }),
  );
  return problems;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/**
 * grpc-js's own file watcher hands on whatever it reads: half a renewal would refuse every handshake or bring the
 * process down. This one keeps what works until it has read something that works as well.
 */
export class CertificateFiles implements experimental.CertificateProvider {
  readonly #tls: TlsOptions;
  readonly #identityListeners = new Set<experimental.IdentityCertificateUpdateListener>();
  readonly #caListeners = new Set<experimental.CaCertificateUpdateListener>();
  readonly #read: () => Promise<Loaded>;
  #loaded: Loaded;
  #timer: NodeJS.Timeout | undefined;

  constructor(tls: TlsOptions, loaded: Loaded, read: () => Promise<Loaded>) {
    this.#tls = tls;
    this.#loaded = loaded;
    this.#read = read;
  }

  /** PEM of the certificate in use. */
  get certificate(): Buffer {
    return this.#loaded.identity.certificate;
  }

  addIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.add(listener);
    // grpc-js begins to listen to us before it listens to itself.
    process.nextTick(() => listener(this.#loaded.identity));
    this.#watch();
  }

  removeIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.delete(listener);
    this.#watch();
  }

  addCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#caListeners.add(listener);
    process.nextTick(() => listener(this.#loaded.ca));
    this.#watch();
  }

  removeCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#caListeners.delete(listener);
    this.#watch();
  }

  #watch(): void {
    const wanted = this.#identityListeners.size + this.#caListeners.size > 0;
    if (wanted === (this.#timer !== undefined)) return;
    if (wanted) {
      this.#timer = setInterval(() => void this.#reload(), this.#tls.reloadIntervalMs ?? RELOAD_INTERVAL_MS);
      this.#timer.unref();
    } else {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  async #reload(): Promise<void> {
    try {
      const loaded = await this.#read();
      if (same(loaded, this.#loaded)) return;
      this.#loaded = loaded;
      for (const listener of this.#caListeners) listener(loaded.ca);
      for (const listener of this.#identityListeners) listener(loaded.identity);
    } catch (error) {
      this.#tls.onReloadError?.(error);
    }
  }
}

function same(a: Loaded, b: Loaded): boolean {
  return (
    a.identity.certificate.equals(b.identity.certificate) &&
    a.identity.privateKey.equals(b.identity.privateKey) &&
    (a.ca?.caCertificate.equals(b.ca?.caCertificate ?? Buffer.alloc(0)) ?? b.ca === null)
  );
}
