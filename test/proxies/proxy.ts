import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from '../harness/store-server.ts';

export const PROXIES = ['nginx', 'haproxy', 'envoy', 'caddy', 'traefik'] as const;
export type ProxyName = (typeof PROXIES)[number];

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CONFIGS = join(ROOT, 'deploy/proxies');

/** Where scripts/proxy-packages.sh has put each; undefined: it cannot be had here. */
export async function findProxies(): Promise<ReadonlyMap<string, string>> {
  const { stdout, stderr } = await promisify(execFile)('sh', ['scripts/proxy-packages.sh'], { cwd: ROOT });
  if (stderr !== '') console.log(stderr.trim());
  return new Map(
    stdout
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(' ') as [string, string]),
  );
}

/** Two gateways' ports, and what of the shipped configuration is another for a test. */
export interface ProxySetting {
  readonly gateways: readonly [number, number];
  /** Port of a gateway's `/readyz`. */
  readonly readyPorts: readonly [number, number];
  readonly change?: (config: string) => string;
  /** Another configuration in the place of the shipped one, with `PORT`, `ADMIN_PORT`, `GATEWAY_1` and `GATEWAY_2` in it. */
  readonly instead?: string;
}

export interface RunningProxy {
  readonly address: string;
  reload(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts a proxy on a free port with the configuration that the project ships, on its own ports and addresses. */
export async function startProxy(
  name: ProxyName,
  program: string,
  setting: ProxySetting,
): Promise<RunningProxy> {
  const folder = mkdtempSync(join(tmpdir(), `${name}-`));
  const port = await freePort();
  const adminPort = await freePort();
  const change = setting.change ?? ((config: string) => config);
  const place = (file: string, into: string) => {
    const config =
      setting.instead !== undefined && MAIN_FILES.has(file)
        ? filled(setting.instead, port, adminPort, setting)
        : placed(readFileSync(join(CONFIGS, file), 'utf8'), port, adminPort, setting);
    writeFileSync(join(folder, into), change(config));
    return join(folder, into);
  };
  const { args, reload, env } = COMMANDS[name]({ folder, place, adminPort, program });
  const child = spawn(program, args, {
    cwd: folder,
    env: { ...process.env, HOME: folder, XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-4_000);
    });
  }
  const ended = once(child, 'exit');
  if (process.env['PROXIES_VERBOSE']) child.stderr?.pipe(process.stderr);
  await listening(
    port,
    () => child.exitCode === null,
    () => said,
  );
  await serving(port);
  return {
    address: `127.0.0.1:${port}`,
    reload: () => reload(child.pid as number),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Traefik has two files; its routes are the same with any setting. */
const MAIN_FILES = new Set(['nginx.conf', 'haproxy.cfg', 'envoy.yaml', 'Caddyfile', 'traefik.yaml']);

function filled(config: string, port: number, adminPort: number, { gateways }: ProxySetting): string {
  return config
    .replaceAll('ADMIN_PORT', String(adminPort))
    .replaceAll('GATEWAY_1', String(gateways[0]))
    .replaceAll('GATEWAY_2', String(gateways[1]))
    .replaceAll('PORT', String(port));
}

/** The shipped file with the test's ports. */
function placed(
  config: string,
  port: number,
  adminPort: number,
  { gateways, readyPorts }: ProxySetting,
): string {
  let server = 0;
  return (
    config
      .replace(/gateway-([12]):50051/g, (_, n: string) => `127.0.0.1:${gateways[Number(n) - 1]}`)
      .replace(
        /address: gateway-([12]), port_value: 50051/g,
        (_, n: string) => `address: 127.0.0.1, port_value: ${gateways[Number(n) - 1]}`,
      )
      // HAProxy asks another port for the health of each.
      .replace(/port 9464 /, '')
      .replace(/resolvers names init-addr none/, '')
      .replace(/ check proto h2/g, () => ` check port ${readyPorts[server++ % 2]} proto h2`)
      .replace(/^resolvers names\n(?: .*\n)+/m, '')
      .replace(/port_value: 9901/, `port_value: ${adminPort}`)
      .replace(/\b50051\b/g, String(port))
  );
}

interface Surroundings {
  readonly folder: string;
  readonly place: (file: string, into: string) => string;
  readonly adminPort: number;
  readonly program: string;
}

interface Command {
  readonly args: readonly string[];
  readonly reload: (pid: number) => Promise<void>;
  readonly env?: Readonly<Record<string, string>>;
}

const signal = (name: NodeJS.Signals) => async (pid: number) => void process.kill(pid, name);

const COMMANDS: Readonly<Record<ProxyName, (surroundings: Surroundings) => Command>> = {
  nginx: ({ folder, place }) => {
    const config = place('nginx.conf', 'nginx.conf');
    const directives = `daemon off; pid ${folder}/nginx.pid; error_log stderr; master_process on;`;
    return { args: ['-p', folder, '-c', config, '-e', 'stderr', '-g', directives], reload: signal('SIGHUP') };
  },
  haproxy: ({ place }) => ({
    args: ['-W', '-f', place('haproxy.cfg', 'haproxy.cfg')],
    reload: signal('SIGUSR2'),
  }),
  envoy: ({ place }) => ({
    args: [
      '-c',
      place('envoy.yaml', 'envoy.yaml'),
      '--concurrency',
      '1',
      '--disable-hot-restart',
      '--log-level',
      'error',
    ],
    reload: async () => {},
  }),
  caddy: ({ folder, place, adminPort, program }) => {
    const config = place('Caddyfile', 'Caddyfile');
    const options = `{\n\tadmin 127.0.0.1:${adminPort}\n`;
    writeFileSync(config, readFileSync(config, 'utf8').replace('{\n', options));
    const args = ['--config', config, '--adapter', 'caddyfile'];
    return {
      args: ['run', ...args],
      // What has not changed is not loaded.
      reload: async () =>
        void (await promisify(execFile)(program, ['reload', '--force', ...args], { cwd: folder })),
    };
  },
  traefik: ({ folder, place }) => {
    const routes = place('traefik-routes.yaml', 'traefik-routes.yaml');
    return {
      args: [`--configFile=${place('traefik.yaml', 'traefik.yaml')}`],
      reload: async () =>
        writeFileSync(join(folder, 'traefik-routes.yaml'), `${readFileSync(routes, 'utf8')}\n# again\n`),
    };
  },
};

async function listening(port: number, lives: () => boolean, said: () => string): Promise<void> {
  for (;;) {
    if (!lives()) throw new Error(`the proxy ended: ${said()}`);
    const socket = connect(port, '127.0.0.1');
    const open = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    socket.destroy();
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A port is open before routes are read and health is known. */
async function serving(port: number): Promise<void> {
  for (;;) {
    const connection = connectHttp2(`http://127.0.0.1:${port}`);
    connection.on('error', () => {});
    const served = await new Promise<boolean>((resolve) => {
      const call = connection.request({
        ':method': 'POST',
        ':path': '/grpc.health.v1.Health/Check',
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      call.on('error', () => resolve(false)).on('close', () => resolve(false));
      // A proxy's own refusal is HTTP, or has its status in the headers.
      call.on('response', (headers) =>
        resolve(headers[':status'] === 200 && headers['grpc-status'] === undefined),
      );
      call.end(Buffer.alloc(5));
    });
    connection.destroy();
    if (served) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Stands for a gateway's machine: it can fall silent, or be gone. */
export class Machine {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: number;

  private constructor(target: number) {
    this.#target = target;
    this.#server = createServer((client) => {
      const gateway = connect(this.#target, '127.0.0.1');
      client.pipe(gateway).pipe(client);
      for (const [socket, other] of [
        [client, gateway],
        [gateway, client],
      ] as const) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
      }
    });
  }

  static async start(target: number): Promise<Machine> {
    const machine = new Machine(target);
    machine.#server.listen(0, '127.0.0.1');
    await once(machine.#server, 'listening');
    return machine;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Without power: nothing is said any more, not even to those who are connected. */
  losePower(): void {
    this.#server.close();
    for (const socket of this.#sockets) {
      socket.unpipe();
      socket.resume();
    }
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
