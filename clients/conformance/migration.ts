/**
 * Runs both programs of each page in docs/migration against one simulator, the old one with the official SDK, and compares
 * what they print: `node clients/conformance/migration.ts [go] [java] [python] [typescript]`. The SDKs are installed into
 * a folder that is removed again. Exits with 1 if two differ.
 */
import { execFile, execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { python } from '../../scripts/client-tools.ts';
import { startGateway } from '../../src/app/gateway.ts';
import { configSchema } from '../../src/config/schema.ts';
import { startSimulator } from '../../src/simulator/index.ts';
import { isRunnerName, RUNNER_NAMES, type RunnerName } from './runners.ts';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Those that docs/migration names. */
const OPENAI_JAVA = '4.0.0';
const OPENAI_PYTHON = '3.57.0';
const PROGRAM_TIMEOUT_MS = 300_000;

interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly cwd: string;
}

/** The commands of both programs; what they need is installed into the folder first. */
const PROGRAMS: Readonly<Record<RunnerName, (folder: string) => { before: Command; after: Command }>> = {
  go: () => ({
    before: { file: 'go', args: ['run', '.'], cwd: `${ROOT}clients/go/examples/migration/before` },
    after: { file: 'go', args: ['run', './migration/after'], cwd: `${ROOT}clients/go/examples` },
  }),
  java: (folder) => {
    const cwd = `${ROOT}clients/java/examples/migration`;
    writeFileSync(join(folder, 'pom.xml'), pomOf('com.openai', 'openai-java', OPENAI_JAVA));
    const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.9.0:build-classpath';
    execFileSync('mvn', ['-B', '-ntp', '-q', goal, '-Dmdep.outputFile=classpath'], {
      cwd: folder,
      stdio: 'inherit',
    });
    copyFileSync(`${cwd}/Before.java`, join(folder, 'Before.java'));
    return {
      before: { file: 'sh', args: ['-c', 'exec java -cp "$(cat classpath)" Before.java'], cwd: folder },
      after: { file: 'sh', args: ['run.sh', 'examples/migration/After.java'], cwd: `${ROOT}clients/java` },
    };
  },
  python: (folder) => {
    const cwd = `${ROOT}clients/python`;
    const file = python() as string;
    const target = ['--target', join(folder, 'openai'), `openai==${OPENAI_PYTHON}`];
    execFileSync(file, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...target], {
      stdio: 'inherit',
    });
    const before = `PYTHONPATH=${join(folder, 'openai')} exec ${file} examples/migration/before.py`;
    return {
      before: { file: 'sh', args: ['-c', before], cwd },
      after: { file: 'sh', args: ['-c', `PYTHONPATH=src exec ${file} examples/migration/after.py`], cwd },
    };
  },
  typescript: () => {
    const cwd = `${ROOT}clients/typescript/examples/migration`;
    return {
      before: { file: process.execPath, args: ['before.ts'], cwd },
      after: { file: process.execPath, args: ['after.ts'], cwd },
    };
  },
};

process.exit(await main(process.argv.slice(2)));

async function main(words: readonly string[]): Promise<number> {
  const unknown = words.filter((word) => !isRunnerName(word));
  if (unknown.length > 0) {
    console.error(`found ${unknown.join(', ')}; allowed: ${RUNNER_NAMES.join(', ')}`);
    return 2;
  }
  let failed = 0;
  for (const name of RUNNER_NAMES.filter((each) => words.length === 0 || words.includes(each))) {
    const problem = await compare(name).catch((error: Error) => error.message);
    console.log(problem === undefined ? `ok    ${name}` : `FAIL  ${name}: ${problem}`);
    if (problem !== undefined) failed += 1;
  }
  return failed > 0 ? 1 : 0;
}

async function compare(name: RunnerName): Promise<string | undefined> {
  const place = '{"city":"Sydney","country":"Australia"}';
  const simulator = await startSimulator({
    script: {
      rules: [{ when: { input: 'opera' }, items: [{ type: 'message', text: place }] }],
    },
  });
  const upstream = { url: simulator.url, allow_plaintext: true };
  const config = configSchema.parse({ listen: '127.0.0.1:0', admin: { listen: '127.0.0.1:0' }, upstream });
  const gateway = await startGateway(config, {
    environment: {},
    version: 'migration',
    logDestination: { write: () => {} },
  });
  const folder = mkdtempSync(join(tmpdir(), 'migration-'));
  try {
    const env = {
      ...process.env,
      OPENAI_API_KEY: 'sk-none',
      OPENAI_BASE_URL: simulator.httpUrl,
      RESPONSES_GATEWAY_ADDR: `127.0.0.1:${gateway.grpcPort}`,
    };
    const { before, after } = PROGRAMS[name](folder);
    const said = async ({ file, args, cwd }: Command) =>
      (await run(file, args, { cwd, env, timeout: PROGRAM_TIMEOUT_MS })).stdout;
    const [old, ours] = [await said(before), await said(after)];
    return old === ours ? undefined : `it printed\n${ours}instead of\n${old}`;
  } finally {
    rmSync(folder, { recursive: true });
    await gateway.close();
    await simulator.close();
  }
}

function pomOf(group: string, artifact: string, version: string): string {
  return `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId>
  <artifactId>migration</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>${group}</groupId>
      <artifactId>${artifact}</artifactId>
      <version>${version}</version>
    </dependency>
  </dependencies>
</project>
`;
}
