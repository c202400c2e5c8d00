import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { credentials } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { serverCredentials } from '../../src/grpc/tls.ts';
import { startGateway, type TestGateway } from '../harness/gateway.ts';

const file = (name: string) => fileURLToPath(new URL(`../harness/certs/${name}`, import.meta.url));
const read = (name: string) => readFileSync(file(name));

let gateway: TestGateway | undefined;
let directory: string | undefined;

afterEach(async () => {
  await gateway?.close();
  if (directory !== undefined) rmSync(directory, { recursive: true });
  gateway = undefined;
  directory = undefined;
});

const serverFiles = { certificateFile: file('server.pem'), privateKeyFile: file('server.key') };

async function served(port: number, options: object = {}): Promise<string> {
  const socket = await new Promise<TLSSocket>((resolve, reject) => {
    const opened: TLSSocket = connect(
      { port, host: '127.0.0.1', ca: read('ca.pem'), ALPNProtocols: ['h2'], ...options },
      () => resolve(opened),
    );
    opened.on('error', reject);
  });
  const serial = socket.getPeerCertificate().serialNumber;
  socket.destroy();
  return serial;
}

const serialOf = (name: string) => new X509Certificate(read(name)).serialNumber;

describe('TLS', () => {
  it('serves with the certificate, to those who trust it', async () => {
    gateway = await startGateway({ server: { tls: serverFiles } });
    const client = gateway.client({ credentials: credentials.createSsl(read('ca.pem')) });
    const stream = client.connect();
    stream.startTurn({ turn_id: 't1' }, 'hello');
    expect((await stream.turn('t1')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
    expect(gateway.access.callers[0]?.peerCertificate).toBeUndefined();
    const distrustful = gateway.client({ credentials: credentials.createSsl(read('stranger.pem')) });
    expect(await distrustful.connect().ended()).toMatchObject({ code: 14 });
  });

  it('speaks nothing older than TLS 1.2', async () => {
    gateway = await startGateway({ server: { tls: serverFiles } });
    expect(await served(gateway.port, { maxVersion: 'TLSv1.2' })).toBe(serialOf('server.pem'));
    await expect(
      served(gateway.port, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }),
    ).rejects.toThrow(/protocol version|unsupported protocol/);
  });

  it('asks for client certificates, and hands the verified one to access control', async () => {
    gateway = await startGateway({ server: { tls: { ...serverFiles, clientCaFile: file('ca.pem') } } });
    const ssl = (name?: string) =>
      name === undefined
        ? credentials.createSsl(read('ca.pem'))
        : credentials.createSsl(read('ca.pem'), read(`${name}.key`), read(`${name}.pem`));
    const stream = gateway.client({ credentials: ssl('client') }).connect();
    await stream.opened();
    const presented = gateway.access.callers[0]?.peerCertificate;
    expect(new X509Certificate(Buffer.from(presented ?? [])).subjectAltName).toBe(
      'URI:spiffe://test/billing',
    );
    for (const credential of [ssl(), ssl('stranger')]) {
      expect(await gateway.client({ credentials: credential }).connect().ended()).toMatchObject({ code: 14 });
    }
    expect(gateway.access.callers).toHaveLength(1);
  });

  it('takes a renewed certificate without a restart, and keeps what works until then', async () => {
    directory = mkdtempSync(join(tmpdir(), 'tls-'));
    const certificateFile = join(directory, 'tls.crt');
    const privateKeyFile = join(directory, 'tls.key');
    copyFileSync(file('server.pem'), certificateFile);
    copyFileSync(file('server.key'), privateKeyFile);
    const errors: unknown[] = [];
    gateway = await startGateway({
      server: {
        tls: { certificateFile, privateKeyFile, reloadIntervalMs: 5, onReloadError: (e) => errors.push(e) },
      },
    });
    const { port } = gateway;
    const stream = gateway.client({ credentials: credentials.createSsl(read('ca.pem')) }).connect();
    await stream.opened();
    expect(await served(port)).toBe(serialOf('server.pem'));

    // Half a renewal: certificate and key do not fit together.
    copyFileSync(file('renewed.pem'), certificateFile);
    while (errors.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await served(port)).toBe(serialOf('server.pem'));
    writeFileSync(privateKeyFile, '');
    expect(await served(port)).toBe(serialOf('server.pem'));

    copyFileSync(file('renewed.key'), privateKeyFile);
    while ((await served(port)) !== serialOf('renewed.pem'))
      await new Promise((resolve) => setImmediate(resolve));
    stream.startTurn({ turn_id: 't1' }, 'the old connection lives on');
    expect((await stream.turn('t1')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  });

  it('refuses files that are missing or do not fit together before any port opens', async () => {
    await expect(serverCredentials({ ...serverFiles, privateKeyFile: '/nowhere' })).rejects.toThrow('ENOENT');
    const mixed = { ...serverFiles, privateKeyFile: file('client.key') };
    await expect(serverCredentials(mixed)).rejects.toThrow(
      /tls\.key_file .* is not the key of tls\.cert_file/,
    );
  });

  it('refuses a key of another kind than the certificate, at the start and when it changes', async () => {
    directory = mkdtempSync(join(tmpdir(), 'tls-'));
    // The certificate's is an EC key.
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const privateKeyFile = join(directory, 'tls.key');
    writeFileSync(privateKeyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const mixed = { ...serverFiles, privateKeyFile };
    await expect(serverCredentials(mixed)).rejects.toThrow(RangeError);

    const otherKey = readFileSync(privateKeyFile);
    copyFileSync(file('server.key'), privateKeyFile);
    const errors: unknown[] = [];
    const watched = { ...mixed, reloadIntervalMs: 5, onReloadError: (error: unknown) => errors.push(error) };
    gateway = await startGateway({ server: { tls: watched } });
    writeFileSync(privateKeyFile, otherKey);
    while (errors.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await served(gateway.port)).toBe(serialOf('server.pem'));
  });
});
