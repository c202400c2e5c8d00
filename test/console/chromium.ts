import { existsSync } from 'node:fs';

const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** Debian's package, which `npm run check -- browser` installs; CHROMIUM names another. Throws when there is none. */
export function chromiumPath(): string {
  const path = process.env['CHROMIUM'] ?? PATHS.find((one) => existsSync(one));
  if (path === undefined) throw new Error('no Chromium: run `npm run check -- browser`, or set CHROMIUM');
  return path;
}
