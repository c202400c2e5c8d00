import type { UpstreamChoice } from '../app/upstreams.ts';
import type { GatewayConfig } from '../config/schema.ts';
import { formatHostPort, reachable } from '../config/units.ts';
import { isLoopback } from '../ground/loopback.ts';

export interface BannerFacts {
  readonly config: GatewayConfig;
  readonly version: string;
  readonly readyMs: number;
  readonly grpcPort: number;
  readonly adminPort: number | undefined;
  readonly upstreams: UpstreamChoice;
}

/** What a person wants to know after the start, with the next thing to try. Plain text, no secrets. */
export function renderBanner({
  config,
  version,
  readyMs,
  grpcPort,
  adminPort,
  upstreams,
}: BannerFacts): string {
  const grpc = formatHostPort({ ...config.listen, port: grpcPort });
  const admin = formatHostPort({ ...config.admin.listen, port: adminPort ?? config.admin.listen.port });
  const workers = config.workers === 1 ? '' : `  ${config.workers} workers`;
  const rows = [
    ['gRPC', `${grpc}  ${security(config)}${workers}`],
    ['Admin', `http://${admin}  /console /healthz /readyz /metrics /sessions`],
    ...upstreamRows(upstreams),
  ];
  return [
    '',
    `  responses-gateway ${version}  ready in ${readyMs} ms`,
    '',
    ...rows.map(([label = '', text]) => `  ${label.padEnd(LABEL_WIDTH)}${text}`),
    '',
    `  Try   ${chatLine(config, grpcPort)}`,
    `        ${tryLine(config, grpc)}`,
    '',
    '',
  ].join('\n');
}

const LABEL_WIDTH = 10;
/** Where chat goes without a flag. */
const CHAT_DEFAULT = '127.0.0.1:50051';
const METHOD = 'responses.gateway.v1.ResponsesService/CreateResponse';

function upstreamRows(choice: UpstreamChoice): string[][] {
  if (choice.kind === 'simulator') {
    return [['Upstream', 'no OPENAI_API_KEY: using the built-in simulator']];
  }
  return choice.upstreams.map(({ name, shownUrl, keySource }, index) => [
    index === 0 ? 'Upstream' : '',
    `${choice.upstreams.length === 1 ? '' : `${name}  `}${shownUrl}  ${keySource}`,
  ]);
}

function security({ tls, listen, auth }: GatewayConfig): string {
  const open = auth.length === 0 || auth.some(({ kind }) => kind === 'none');
  const transport = tls === undefined ? 'plaintext' : tls.client_ca_file === undefined ? 'TLS' : 'mTLS';
  const callers = open ? 'no authentication' : auth.map(({ kind }) => kind).join(', ');
  return `${transport}, ${callers}${open && isLoopback(listen.host) ? ' (loopback only)' : ''}`;
}

/** As it works from where this was started: npm from the sources, the installed program elsewhere. */
function chatLine(config: GatewayConfig, grpcPort: number): string {
  const { tls, listen, auth } = config;
  const address = formatHostPort(reachable({ ...listen, port: grpcPort }));
  const flags = [
    ...(address === CHAT_DEFAULT ? [] : [`--address ${address}`]),
    ...(tls === undefined ? [] : ['--tls']),
  ].join(' ');
  const token = auth.some(({ kind }) => kind === 'api_keys' || kind === 'jwt');
  const program = import.meta.url.endsWith('.ts') ? 'npm run cli -- chat' : 'responses-gateway chat';
  return `${token ? 'RESPONSES_GATEWAY_TOKEN=$TOKEN ' : ''}${program} ${flags}`.trimEnd();
}

/** A call that works as written in a POSIX shell. */
function tryLine({ tls, auth }: GatewayConfig, address: string): string {
  const flags = [
    tls === undefined ? '-plaintext' : '',
    auth.some(({ kind }) => kind === 'api_keys' || kind === 'jwt') ? '-H "authorization: Bearer $TOKEN"' : '',
  ].filter((flag) => flag !== '');
  const body = '{"create": {"model": "gpt-5.5", "input": [{"message": {"role": "user", "text": "Hello"}}]}}';
  return ['grpcurl', ...flags, `-d '${body}'`, address, METHOD].join(' ');
}
