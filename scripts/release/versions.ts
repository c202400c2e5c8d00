import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where the one version of everything stands, and how often. Each pattern's first group stays, its second is the version. */
const PLACES: readonly (readonly [file: string, pattern: RegExp, times: number])[] = [
  ['package.json', /^( {2}"version": ")([^"]+)/gm, 1],
  ['package-lock.json', /^( {2}"version": "|\s+"name": "responses-gateway",\n\s+"version": ")([^"]+)/gm, 2],
  ['clients/typescript/package.json', /^( {2}"version": ")([^"]+)/gm, 1],
  ['clients/python/pyproject.toml', /^(version = ")([^"]+)/gm, 1],
  ['clients/java/pom.xml', /(<artifactId>responses-gateway-parent<\/artifactId>\s*<version>)([^<]+)/g, 1],
  ...['stubs', 'client', 'testing', 'examples'].map((module): (typeof PLACES)[number] => [
    `clients/java/${module}/pom.xml`,
    /(<artifactId>responses-gateway-parent<\/artifactId>\s*<version>)([^<]+)/g,
    1,
  ]),
  ['clients/java/README.md', /(<artifactId>responses-gateway-client<\/artifactId>\s*<version>)([^<]+)/g, 2],
  ['deploy/helm/responses-gateway/Chart.yaml', /^(version: |appVersion: ")([^"\n]+)/gm, 2],
];

/** Throws, and writes nothing, when a place does not look as it should. */
export function setVersion(root: string, version: string): readonly string[] {
  const written = PLACES.map(([file, pattern, times]) => {
    const path = join(root, file);
    const text = readFileSync(path, 'utf8');
    const found = text.match(pattern)?.length ?? 0;
    if (found !== times) throw new Error(`${file}: found ${found} versions; allowed: ${times}`);
    return [path, text.replace(pattern, `$1${version}`)] as const;
  });
  for (const [path, text] of written) writeFileSync(path, text);
  return PLACES.map(([file]) => file);
}
