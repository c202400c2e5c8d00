import { X509Certificate } from 'node:crypto';
import { type ChannelCredentials, experimental, type ServerCredentials } from '@grpc/grpc-js';
import { parseAltNames } from '../access/auth/mtls.ts';
import type { PeerTlsOptions } from './peers.ts';
import { openCertificates } from './tls.ts';

/** Both sides of mTLS between the processes of a gateway, by one certificate. */
export interface PeerCredentials {
  readonly server: ServerCredentials;
  readonly client: ChannelCredentials;
  /** Subject alternative names of the certificate in use. */
  names(): string | undefined;
  /** One of the DNS names, for SNI. */
  serverName(): string;
}

/** Nobody looks it up; TLS wants a name, and addresses are none. */
const ANY_NAME = 'responses-gateway.internal';

/** Rejects as `serverCredentials` does. */
export async function peerCredentials(tls: PeerTlsOptions): Promise<PeerCredentials> {
  const files = await openCertificates(tls, 'cluster.peer_tls', 'ca_file');
  const names = () => new X509Certificate(files.certificate).subjectAltName;
  return {
    server: experimental.createCertificateProviderServerCredentials(files, files, true),
    client: experimental.createCertificateProviderChannelCredentials(files, files, {
      // Addresses of pods stand in no certificate.
      checkServerIdentity: (_host, { subjectaltname }) =>
        sharesName(subjectaltname, names()) ? undefined : new Error('the certificate is of another service'),
    }),
    names,
    serverName: () =>
      parseAltNames(names())?.find(({ type, value }) => type === 'DNS' && !value.includes('*'))?.value ??
      ANY_NAME,
  };
}

/** Replicas have one certificate, or several with a name in common. */
export function sharesName(theirs: string | undefined, ours: string | undefined): boolean {
  const mine = new Set(parseAltNames(ours)?.map(({ type, value }) => `${type}:${value}`));
  return parseAltNames(theirs)?.some(({ type, value }) => mine.has(`${type}:${value}`)) ?? false;
}
