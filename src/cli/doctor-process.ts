import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { defaultMaxConnections, descriptorLimit } from '../app/descriptors.ts';
import { formatHostPort, type HostPort, reachable } from '../config/units.ts';
import { http } from '../ground/http.ts';
import { floorAbove } from '../ground/node-floors.ts';
import type { DoctorCase, Finding } from './doctor.ts';

/** A thousand sessions with their links, and some room. */
const COMFORTABLE_DESCRIPTORS = 4_096;
const DAY_MS = 86_400_000;
/** Enough for a person to renew it. */
const RENEW_DAYS = 14;
const TIMEOUT_MS = 3_000;

export function checkRuntime(): Finding {
  const { node } = process.versions;
  const floor = floorAbove(node);
  if (floor === undefined) return { check: 'runtime', status: 'ok', found: `Node ${node}` };
  return {
    check: 'runtime',
    status: 'warning',
    found: `Node ${node} has known holes in HTTP/2 and TLS that callers can reach`,
    advice: `Update to ${floor} or later, or use the image.`,
  };
}

export function checkDescriptors({ config }: DoctorCase): readonly Finding[] {
  const limit = descriptorLimit();
  const wanted = config.grpc.max_connections;
  const possible = defaultMaxConnections(limit);
  const found = `${limit} file descriptors, ${wanted ?? possible} client connections a process`;
  if (wanted !== undefined && wanted > limit) {
    return [
      {
        check: 'descriptors',
        status: 'error',
        found: `grpc.max_connections is ${wanted}, and a process may have ${limit} file descriptors`,
        advice: `Raise the limit (ulimit -n, LimitNOFILE), or set grpc.max_connections to ${possible} or less.`,
      },
    ];
  }
  if (limit >= COMFORTABLE_DESCRIPTORS) return [{ check: 'descriptors', status: 'ok', found }];
  return [
    { check: 'descriptors', status: 'warning', found, advice: 'Raise the limit: ulimit -n, or LimitNOFILE.' },
  ];
}

/** What the gateway shows its callers, and the files that it reads. */
export function checkCertificates({ config }: DoctorCase): readonly Finding[] {
  const findings: Finding[] = [];
  if (config.tls !== undefined) findings.push(certificate('tls.cert_file', config.tls.cert_file));
  const { token_file } = config.admin;
  if (token_file !== undefined) findings.push(token(token_file));
  return findings;
}

function certificate(check: string, path: string): Finding {
  try {
    const { validToDate, subject } = new X509Certificate(readFileSync(path));
    const days = Math.floor((validToDate.getTime() - Date.now()) / DAY_MS);
    const found = `${subject.replaceAll('\n', ', ')}, valid for ${days} days`;
    if (days < 0)
      return { check, status: 'error', found: `${subject}, expired ${-days} days ago`, advice: 'Renew it.' };
    return days < RENEW_DAYS
      ? { check, status: 'warning', found, advice: 'Renew it.' }
      : { check, status: 'ok', found };
  } catch (error) {
    return { check, status: 'error', found: (error as Error).message, advice: 'Name a PEM file.' };
  }
}

function token(path: string): Finding {
  const check = 'admin.token_file';
  try {
    if (readFileSync(path, 'utf8').trim() !== '') return { check, status: 'ok', found: 'readable' };
    return { check, status: 'error', found: 'the file is empty', advice: 'Write a long random word to it.' };
  } catch (error) {
    return {
      check,
      status: 'error',
      found: (error as Error).message,
      advice: 'Let the gateway’s user read it.',
    };
  }
}

/** Free, or held by a gateway that answers. */
export async function checkPorts({ config }: DoctorCase): Promise<readonly Finding[]> {
  const running = await readiness(reachable(config.admin.listen));
  const ports = [
    ['listen', config.listen],
    ['admin.listen', config.admin.listen],
  ] as const;
  return Promise.all(
    ports.map(async ([check, address]): Promise<Finding> => {
      const where = formatHostPort(address);
      const code = await bindError(address);
      if (code === undefined) return { check, status: 'ok', found: `${where} is free` };
      if (code === 'EADDRINUSE' && running !== undefined)
        return { check, status: 'ok', found: `${where} is used by a gateway, which is ${running}` };
      return {
        check,
        status: 'error',
        found: `${where}: ${code}`,
        advice:
          code === 'EADDRINUSE'
            ? 'Another program has it: stop that, or choose another address.'
            : 'Choose an address of this machine, with a port above 1023.',
      };
    }),
  );
}

function bindError({ host, port }: HostPort): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen(port, host, () => server.close(() => resolve(undefined)));
  });
}

/** Undefined: no gateway answers there. */
function readiness({ host, port }: HostPort): Promise<string | undefined> {
  return new Promise((resolve) => {
    const request = http.get({ host, port, path: '/readyz', agent: false, timeout: TIMEOUT_MS }, (answer) => {
      let body = '';
      answer.on('data', (part: Buffer) => {
        body += part.toString();
      });
      answer.on('end', () => resolve(/^(?:ready|not ready)/.test(body) ? body.trim() : undefined));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(undefined));
  });
}
