/**
 * Prepares a release of the gateway, the four clients, the image and the chart, all with one version:
 *
 *   node scripts/release.ts 0.2.0            changes this checkout, commits, tags, builds into dist/release
 *   node scripts/release.ts --dry-run        the same for the next minor version, in a clone that is then removed
 *
 * Pushes and publishes nothing; RELEASING.md says what comes then.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readFragments, withRelease } from './release/changelog.ts';
import { setVersion } from './release/versions.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

process.exitCode = main(process.argv.slice(2));

function main(args: readonly string[]): number {
  const [argument, ...more] = args;
  const current = versionOf(ROOT);
  if (more.length === 0 && argument === '--dry-run') return dryRun(nextMinor(current));
  if (
    more.length > 0 ||
    argument === undefined ||
    !/^\d+\.\d+\.\d+$/.test(argument) ||
    !isNewer(argument, current)
  ) {
    console.error(`release: found "${args.join(' ')}"; allowed: --dry-run, or a version above ${current}`);
    return 2;
  }
  if (git(ROOT, 'status', '--porcelain') !== '') {
    console.error('release: there are changes that are not committed');
    return 1;
  }
  release(ROOT, argument);
  return 0;
}

function dryRun(version: string): number {
  const clone = mkdtempSync(join(tmpdir(), 'release-'));
  try {
    execFileSync('git', ['clone', '--quiet', '--no-local', ROOT, clone]);
    // Installed before, and ignored by git.
    for (const folder of ['node_modules', '.cache'])
      if (existsSync(join(ROOT, folder))) symlinkSync(join(ROOT, folder), join(clone, folder));
    release(clone, version);
    console.log('dry run: nothing was changed');
    return 0;
  } finally {
    rmSync(clone, { recursive: true });
  }
}

function release(root: string, version: string): void {
  const fragments = readFragments(join(root, 'changes'));
  if (fragments.length === 0) throw new Error('changes/ is empty: there is nothing to release');
  const date = new Date().toISOString().slice(0, 10);
  const changelog = join(root, 'CHANGELOG.md');
  writeFileSync(changelog, withRelease(readFileSync(changelog, 'utf8'), version, date, fragments));
  for (const { file } of fragments) rmSync(join(root, 'changes', file));
  const versioned = setVersion(root, version);
  // From now on a change that breaks this API is refused.
  run(root, 'buf', 'build', '--exclude-source-info', '-o', 'proto/baseline.binpb');
  git(root, 'add', ...versioned, 'CHANGELOG.md', 'changes', 'proto/baseline.binpb');
  git(root, 'commit', '--quiet', '-m', `release: ${version}`);
  for (const tag of [`v${version}`, `clients/go/v${version}`, `clients/go/otel/v${version}`])
    git(root, 'tag', '--annotate', tag, '--message', tag);

  const out = join(root, 'dist/release');
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  run(root, 'npm', 'run', '--silent', 'build');
  run(root, 'npm', 'pack', '--silent', '--pack-destination', out);
  run(root, 'sh', 'scripts/client-packages.sh', out, 'python', 'typescript');
  run(
    root,
    'tar',
    '-czf',
    join(out, `responses-gateway-chart-${version}.tgz`),
    '-C',
    'deploy/helm',
    'responses-gateway',
  );
  run(root, 'sh', 'scripts/sbom.sh', join(out, 'sbom.cdx.json'));
  attest(root, version, out);
  console.log(`prepared ${version}: ${readdirSync(out).join(', ')}`);
  console.log(`tags: ${git(root, 'tag', '--points-at', 'HEAD').split('\n').join(', ')}`);
}

/** Sums of all files, and where they come from as an in-toto statement (SLSA provenance v1), to be signed with them. */
function attest(root: string, version: string, out: string): void {
  const subject = readdirSync(out).map((name) => ({
    name,
    digest: {
      sha256: createHash('sha256')
        .update(readFileSync(join(out, name)))
        .digest('hex'),
    },
  }));
  writeFileSync(
    join(out, 'SHA256SUMS'),
    subject.map(({ name, digest }) => `${digest.sha256}  ${name}\n`).join(''),
  );
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject,
    predicateType: 'https://slsa.dev/provenance/v1',
    predicate: {
      buildDefinition: {
        buildType: 'https://github.com/responses-gateway/responses-gateway/blob/main/RELEASING.md',
        externalParameters: { version },
        internalParameters: { node: process.version },
        resolvedDependencies: [
          {
            uri: 'git+https://github.com/responses-gateway/responses-gateway',
            digest: { gitCommit: git(root, 'rev-parse', 'HEAD') },
          },
        ],
      },
      runDetails: {
        builder: {
          id: 'https://github.com/responses-gateway/responses-gateway/blob/main/scripts/release.ts',
        },
      },
    },
  };
  writeFileSync(join(out, 'provenance.json'), `${JSON.stringify(statement, null, 2)}\n`);
}

function versionOf(root: string): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version;
}

function partsOf(version: string): readonly number[] {
  return version.split('.').map(Number);
}

function nextMinor(version: string): string {
  const [major, minor] = partsOf(version);
  return `${major}.${Number(minor) + 1}.0`;
}

function isNewer(version: string, than: string): boolean {
  const [a, b] = [partsOf(version), partsOf(than)];
  const first = a.findIndex((part, index) => part !== b[index]);
  return first >= 0 && Number(a[first]) > Number(b[first]);
}

function git(root: string, ...args: readonly string[]): string {
  return execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
}

function run(root: string, command: string, ...args: readonly string[]): void {
  const PATH = `${ROOT}node_modules/.bin:${process.env['PATH']}`;
  execFileSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, PATH },
  });
}
