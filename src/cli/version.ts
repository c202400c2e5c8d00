import { readFileSync } from 'node:fs';

let version: string | undefined;

/** From package.json, which stands two folders up both in the sources and in the published package. */
export function packageVersion(): string {
  version ??= (
    JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
  ).version;
  return version;
}
