import { stringify } from 'yaml';
import { createApiKey, scryptHash } from '../access/auth/api-keys.ts';
import { EXIT } from '../app/exit-codes.ts';

/** Makes an API key. The key goes to standard output, once; what the configuration stores of it to standard error. */
export async function createKeyCommand(options: Readonly<Record<string, unknown>>): Promise<number> {
  const { key, id, hash } = createApiKey();
  const entry = {
    id,
    hash: options.hash === 'scrypt' ? await scryptHash(key) : hash,
    tenant: String(options.tenant),
    ...(typeof options.subject === 'string' ? { subject: options.subject } : {}),
  };
  process.stdout.write(`${key}\n`);
  process.stderr.write(
    [
      '',
      'The line above is the key. It is shown this once and stored nowhere; callers send it as',
      '"authorization: Bearer <key>". For the configuration:',
      '',
      stringify({ auth: [{ kind: 'api_keys', keys: [entry] }] }),
    ].join('\n'),
  );
  return EXIT.ok;
}
