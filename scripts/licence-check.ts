/**
 * Checks what is installed against package-lock.json: every licence is one that we may ship (or, for tools, use),
 * every direct dependency has an exact version and a reason in docs/dependencies.md, and nothing that is shipped
 * runs a script on install. Prints one line per finding; exit code 1 if there are any.
 */
import { existsSync, readFileSync } from 'node:fs';

/** Permissive; fit for a program under Apache-2.0. */
const SHIPPED = new Set([
  'Apache-2.0',
  'MIT',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'MIT OR Apache-2.0',
  '(Apache-2.0 AND BSD-3-Clause)',
]);
/** Weak copyleft and the like is fine in tools that nobody receives from us. */
const TOOLS_ONLY = new Set(['MPL-2.0', '(MIT AND Zlib)', 'BlueOak-1.0.0', 'CC0-1.0', 'Python-2.0']);

/** Install scripts that were read: protobufjs warns of version ranges that it does not like, and does nothing else. */
const HARMLESS_SCRIPTS = new Set(['node_modules/protobufjs']);

interface Locked {
  readonly version?: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly link?: boolean;
  readonly hasInstallScript?: boolean;
}

interface Manifest {
  readonly license?: unknown;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

const root = new URL('../', import.meta.url);
const findings = [...checkPackages(), ...checkDirect()];
for (const finding of findings) console.error(finding);
process.exitCode = findings.length === 0 ? 0 : 1;

function checkPackages(): string[] {
  const lock = readJson<{ packages: Readonly<Record<string, Locked>> }>('package-lock.json');
  const found: string[] = [];
  const counts = new Map<string, number>();
  for (const [path, locked] of Object.entries(lock.packages)) {
    if (!path.includes('node_modules/') || locked.link === true) continue;
    // npm forgets licence and hash of tools for other platforms; whoever installs those, checks those.
    if (locked.dev === true && locked.optional === true && !isInstalled(path)) continue;
    const licence = licenceOf(path, locked);
    counts.set(licence, (counts.get(licence) ?? 0) + 1);
    const tool = locked.dev === true;
    if (!SHIPPED.has(licence) && !(tool && TOOLS_ONLY.has(licence)))
      found.push(`${path}: licence ${licence}`);
    if (locked.integrity === undefined) found.push(`${path}: no integrity in the lockfile`);
    if (!tool && locked.hasInstallScript === true && !HARMLESS_SCRIPTS.has(path))
      found.push(`${path}: runs a script on install`);
  }
  for (const [licence, count] of [...counts].sort((a, b) => b[1] - a[1])) console.log(`${count}\t${licence}`);
  return found;
}

/** The installed package speaks first: a lockfile repeats what the registry was told. */
function licenceOf(path: string, locked: Locked): string {
  const license = isInstalled(path) ? readJson<Manifest>(`${path}/package.json`).license : undefined;
  return typeof license === 'string' ? license : (locked.license ?? 'unknown');
}

function isInstalled(path: string): boolean {
  return existsSync(new URL(`${path}/package.json`, root));
}

function checkDirect(): string[] {
  const { dependencies = {}, devDependencies = {} } = readJson<Manifest>('package.json');
  const reasons = readFileSync(new URL('docs/dependencies.md', root), 'utf8');
  const found: string[] = [];
  const listed = [...reasons.matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1] ?? '');
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
    if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) found.push(`${name}: version ${version} is not exact`);
    if (!listed.includes(name)) found.push(`${name}: no reason in docs/dependencies.md`);
  }
  for (const name of listed) {
    if (!(name in dependencies || name in devDependencies))
      found.push(`${name}: in docs/dependencies.md, not used`);
  }
  return found;
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(path, root), 'utf8'));
}
