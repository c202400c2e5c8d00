import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { plain, type Reply } from './reply.ts';

// Nothing from anywhere else, nothing inline. Trusted Types: no text ever becomes markup.
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

const HEADERS = { 'content-security-policy': CONTENT_SECURITY_POLICY };

/** Path below /console, file of the bundle, media type. */
const FILES: Readonly<Record<string, readonly [file: string, contentType: string]>> = {
  '/console': ['index.html', 'text/html; charset=utf-8'],
  '/console/console.js': ['console.js', 'text/javascript; charset=utf-8'],
  '/console/console.css': ['console.css', 'text/css; charset=utf-8'],
};

/** `npm run build` puts it there; from the sources as well as from the package. */
const BUNDLE = new URL('../../dist/console/', import.meta.url);

export const CONSOLE_PATHS: readonly string[] = Object.keys(FILES);

/** Read when somebody looks: most processes are never looked at. */
export function consoleFile(path: string, bundle: URL = BUNDLE): Reply {
  const [file, contentType] = FILES[path] ?? [];
  if (file === undefined || contentType === undefined) return plain(404, 'no such file');
  try {
    return {
      status: 200,
      contentType,
      body: readFileSync(fileURLToPath(new URL(file, bundle))),
      headers: HEADERS,
    };
  } catch {
    return plain(503, 'the console is not built: npm run build');
  }
}
