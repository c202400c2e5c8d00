import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { connect } from 'node:tls';
import { dialOptions } from '../app/options.ts';
import { chooseUpstreams, type UpstreamChoice, upstreamOptions } from '../app/upstreams.ts';
import type { LinkDown } from '../core/types.ts';
import { GatewayError, REASONS } from '../errors.ts';
import { createDialer } from '../upstream/dialer.ts';
import type { Dialer } from '../upstream/types.ts';
import type { DoctorCase, Finding } from './doctor.ts';

type Upstream = Extract<UpstreamChoice, { upstreams: unknown }>['upstreams'][number];

const TIMEOUT_MS = 10_000;
const DAY_MS = 86_400_000;
const RENEW_DAYS = 14;

/** Each upstream as the gateway would reach it: its name, its certificate, and a link with the gateway's own key. */
export async function checkUpstreams(all: DoctorCase): Promise<readonly Finding[]> {
  const { config, environment } = all;
  const choice = chooseUpstreams(config, environment);
  if (choice.kind === 'simulator') {
    return [
      {
        check: 'upstream',
        status: 'warning',
        found: 'there is none: the built-in simulator answers',
        advice: 'Set OPENAI_API_KEY, or upstream.url.',
      },
    ];
  }
  const each = await Promise.all(choice.upstreams.map((upstream) => checkUpstream(upstream, all)));
  return each.flat();
}

async function checkUpstream(upstream: Upstream, all: DoctorCase): Promise<readonly Finding[]> {
  const { hostname, port, protocol } = new URL(upstream.url);
  const host = hostname.replaceAll(/^\[|\]$/g, '');
  const name = `upstream.${upstream.name}`;
  const viaProxy = usesProxy(upstream, all.environment);
  const findings: Finding[] = [];
  if (viaProxy) {
    findings.push({ check: `${name}.dns`, status: 'skipped', found: 'a proxy resolves the name' });
  } else {
    const dns = await checkDns(`${name}.dns`, host);
    findings.push(dns);
    if (dns.status === 'error') return findings;
    if (/^(?:wss|https):$/.test(protocol))
      findings.push(await checkTls(`${name}.tls`, host, Number(port || 443), upstream));
  }
  return [...findings, await checkLink(name, upstream, all)];
}

function usesProxy({ proxy }: Upstream, environment: NodeJS.ProcessEnv): boolean {
  if (proxy !== 'environment') return proxy !== 'none';
  return ['https_proxy', 'HTTPS_PROXY', 'http_proxy', 'HTTP_PROXY'].some((name) =>
    Boolean(environment[name]),
  );
}

async function checkDns(check: string, host: string): Promise<Finding> {
  if (isIP(host) !== 0) return { check, status: 'ok', found: `${host} is an address` };
  try {
    const addresses = await lookup(host, { all: true });
    return { check, status: 'ok', found: `${host} is ${addresses.map(({ address }) => address).join(', ')}` };
  } catch (error) {
    return {
      check,
      status: 'error',
      found: `${host} cannot be resolved (${(error as NodeJS.ErrnoException).code})`,
      advice: 'Check the name in the URL, and the resolver of this machine or pod (/etc/resolv.conf).',
    };
  }
}

function checkTls(check: string, host: string, port: number, upstream: Upstream): Promise<Finding> {
  return new Promise((resolve) => {
    const servername = upstream.tls_server_name ?? (isIP(host) === 0 ? host : undefined);
    const ca = upstream.ca_file === undefined ? undefined : readFileSync(upstream.ca_file, 'utf8');
    const socket = connect(
      {
        host,
        port,
        minVersion: upstream.tls_min_version,
        ...(servername === undefined ? {} : { servername }),
        ...(ca === undefined ? {} : { ca }),
      },
      () => {
        const days = Math.floor((Date.parse(socket.getPeerCertificate().valid_to) - Date.now()) / DAY_MS);
        const found = `${socket.getProtocol()}, certificate valid for ${days} days`;
        socket.destroy();
        resolve(
          days < RENEW_DAYS
            ? { check, status: 'warning', found, advice: 'Whoever runs the upstream has to renew it.' }
            : { check, status: 'ok', found },
        );
      },
    );
    socket.setTimeout(TIMEOUT_MS, () =>
      socket.destroy(Object.assign(new Error('timeout'), { code: 'ETIMEDOUT' })),
    );
    socket.on('error', (error: NodeJS.ErrnoException) => {
      resolve({
        check,
        status: 'error',
        found: error.code ?? error.message,
        advice: tlsAdvice(error.code ?? ''),
      });
    });
  });
}

function tlsAdvice(code: string): string {
  if (/^(?:ECONN|ETIMEDOUT|EHOST|ENET)/.test(code))
    return 'Nothing answers there: check host and port, firewalls and egress rules, and whether a proxy is needed (upstream.proxy).';
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return 'The certificate is for another name: correct the URL, or set tls_server_name.';
  if (/CERT|SELF_SIGNED|ISSUER/.test(code))
    return 'The certificate is not trusted here: name its authority with ca_file, or in NODE_EXTRA_CA_CERTS.';
  return 'The two sides have no common version or cipher: see tls_min_version.';
}

/** The dial that a session makes. */
async function checkLink(
  name: string,
  upstream: Upstream,
  { config, environment }: DoctorCase,
): Promise<Finding> {
  const check = `${name}.link`;
  const options = upstreamOptions(
    { kind: 'configured', upstreams: [{ ...upstream, fallback: undefined }] },
    undefined,
    environment,
    () => {},
  );
  const dial = dialOptions(config);
  const dialer = createDialer({
    upstreams: options,
    ...dial,
    pool: { size: 0, maxIdleLinks: 0, maxIdleMs: 1_000 },
  });
  const startedAtMs = performance.now();
  try {
    const result = await new Promise<LinkDown | string>((resolve) => {
      const timer = setTimeout(() => resolve('no answer'), upstream.handshake_timeout + TIMEOUT_MS);
      const done = (value: LinkDown | string) => {
        clearTimeout(timer);
        resolve(value);
      };
      const link = dialer.dial(
        {
          ...DIAL,
          upstream: upstream.name,
        },
        {
          onUp: ({ transport }) => {
            const ms = Math.round(performance.now() - startedAtMs);
            link.close(1000, 'looked at');
            done(`${transport} in ${ms} ms, ${upstream.keySource}`);
          },
          onFrame: () => {},
          onBlocked: () => {},
          onWritable: () => {},
          onDown: done,
        },
      );
    });
    if (typeof result !== 'string') return refused(check, result, upstream);
    if (result === 'no answer')
      return {
        check,
        status: 'error',
        found: result,
        advice: 'See upstream.handshake_timeout and the network.',
      };
    if (!result.startsWith('sse')) return { check, status: 'ok', found: result };
    return await checkKeyOverHttp(check, dialer, upstream);
  } finally {
    await dialer.close();
  }
}

const DIAL = {
  purpose: 'session',
  attempt: 0,
  model: undefined,
  tenantId: 'doctor',
  credential: undefined,
  traceContext: undefined,
} as const;

/** Over HTTP a link is no connection: a response that does not exist is asked for, which costs nothing. */
async function checkKeyOverHttp(check: string, dialer: Dialer, upstream: Upstream): Promise<Finding> {
  const found = `HTTP with server-sent events, ${upstream.keySource}`;
  try {
    await dialer.call(
      { ...DIAL, upstream: upstream.name, overHttp: true },
      { method: 'GET', path: ['responses', 'resp_doctor'] },
      AbortSignal.timeout(TIMEOUT_MS),
    );
  } catch (error) {
    const failure = GatewayError.from(error);
    const status = failure.upstream?.status;
    if (status === undefined || status === 401 || status === 403 || status >= 500)
      return refused(
        check,
        { error: failure, ...(status === undefined ? {} : { httpStatus: status }) },
        upstream,
      );
    if (status !== 404)
      return { check, status: 'ok', found: `${found}, not refused (HTTP ${status} to GET /responses/ID)` };
  }
  return { check, status: 'ok', found: `${found}, accepted` };
}

function refused(
  check: string,
  { error, httpStatus }: Pick<LinkDown, 'error' | 'httpStatus'>,
  { keySource }: Upstream,
): Finding {
  const status = httpStatus === undefined ? '' : `, HTTP ${httpStatus}`;
  return {
    check,
    status: 'error',
    found: `${error.reason}${status}: ${error.message}`,
    advice:
      error.reason === 'UPSTREAM_AUTH'
        ? `The key is refused (${keySource}): replace it.`
        : REASONS[error.reason].fix,
  };
}
