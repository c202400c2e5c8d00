import { createPrivateKey, X509Certificate } from 'node:crypto';
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

async function load(tls: TlsOptions, section: string, caField: string): Promise<Loaded> {
  const certField = `${section}.cert_file`;
  const keyField = `${section}.key_file`;
  const caName = `${section}.${caField}`;
  const [certificate, privateKey, caCertificate] = await Promise.all([
    readPem(certField, tls.certificateFile),
    readPem(keyField, tls.privateKeyFile),
    tls.clientCaFile === undefined ? undefined : readPem(caName, tls.clientCaFile),
  ]);
  const parsed = usable(certField, tls.certificateFile, () => new X509Certificate(certificate));
  const key = usable(keyField, tls.privateKeyFile, () => createPrivateKey(privateKey));
  // As is the case while the two are being replaced. A TLS context takes a key of another kind than the certificate's.
  if (!parsed.checkPrivateKey(key)) {
    throw new RangeError(
      `${keyField} (${tls.privateKeyFile}) is not the key of ${certField} (${tls.certificateFile})`,
    );
  }
  // The rest of the chain, and what a certificate of today has to have, such as a long enough key.
  usable(certField, tls.certificateFile, () => createSecureContext({ cert: certificate, key: privateKey }));
  if (tls.clientCaFile !== undefined && caCertificate !== undefined) {
    // A TLS context takes anything for the authorities, and then trusts none.
    usable(caName, tls.clientCaFile, () => new X509Certificate(caCertificate));
  }
  return {
    identity: { certificate, privateKey },
    ca: caCertificate === undefined ? null : { caCertificate },
  };
}

async function readPem(field: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw unusable(field, path, error);
  }
}

function usable<T>(field: string, path: string, take: () => T): T {
  try {
    return take();
  } catch (error) {
    throw unusable(field, path, error);
  }
}

/** A RangeError is the operator's mistake: the start ends with one line that says it. */
function unusable(field: string, path: string, cause: unknown): RangeError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new RangeError(`${field} (${path}) cannot be used: ${why}`, { cause });
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
