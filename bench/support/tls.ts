/** A simulator with TLS, as every real provider is. Its certificate is for localhost, from a CA of the test harness. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Service, startSimulator } from './processes.ts';

const CERTIFICATES = new URL('../../test/harness/certs/', import.meta.url);

export const CA_FILE = pathOf('ca.pem');
export const CA = readFileSync(CA_FILE, 'utf8');

/** Certificate and key of a server on localhost. */
export const SERVER_FILES: readonly string[] = [pathOf('server.pem'), pathOf('server.key')];

/** What makes a gateway serve with it. */
export const CERTIFICATE_FLAGS: readonly string[] = [
  ...['--set', `tls.cert_file=${SERVER_FILES[0]}`],
  ...['--set', `tls.key_file=${SERVER_FILES[1]}`],
];

/** What a gateway needs to be told to trust it. */
export const TRUST_CA: readonly string[] = ['--set', `upstream.ca_file=${CA_FILE}`];

/** `options` as in a simulator options file. */
export async function startTlsSimulator(options: object = {}): Promise<Service> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-simulator-'));
  const file = join(folder, 'options.json');
  const tls = { certFile: pathOf('server.pem'), keyFile: pathOf('server.key') };
  writeFileSync(file, JSON.stringify({ ...options, tls }));
  try {
    return await startSimulator(['--options', file]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function pathOf(name: string): string {
  return fileURLToPath(new URL(name, CERTIFICATES));
}
