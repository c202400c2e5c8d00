import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it, onTestFinished } from 'vitest';
import { startServer } from './harness.ts';

const DIALER = new URL('../../src/upstream/dialer.ts', import.meta.url).href;

/** Dials without a descriptor left, more often than a circuit stands, then with some. */
const SCRIPT = `
import { closeSync, openSync } from 'node:fs';
import { createDialer } from ${JSON.stringify(DIALER)};
const [url, transport] = process.argv.slice(1);
const upstreams = [{ name: 'main', provider: 'openai', url, allowPlaintext: true, transport }];
const dialer = createDialer({ upstreams, pool: { size: 0 }, breaker: { failures: 2 } });
const dial = () => new Promise((resolve) => {
  const request = { purpose: 'session', attempt: 0, upstream: undefined, model: undefined, tenantId: 't', caller: {} };
  const listener = { onUp: () => resolve('up'), onDown: ({ error }) => resolve(error.metadata.cause ?? error.reason),
    onFrame() {}, onBlocked() {}, onWritable() {} };
  dialer.dial(request, listener);
});
await new Promise((resolve) => setTimeout(resolve, 50));
const taken = [];
try { for (;;) taken.push(openSync('/dev/null')); } catch {}
const told = [];
for (let n = 0; n < 4; n++) told.push(await dial());
for (const descriptor of taken) closeSync(descriptor);
told.push(await dial());
console.log(JSON.stringify(told));
process.exit(0);
`;

it.each(['websocket', 'http'])(
  'a dial by %s without a file descriptor is not held against the upstream',
  async (transport) => {
    const server = await startServer();
    onTestFinished(() => server.close());
    const args = ['--input-type=module', '-e', SCRIPT, `ws://127.0.0.1:${server.port}/v1`, transport];
    const child = spawn('sh', ['-c', 'ulimit -n 64 && exec "$@"', 'sh', process.execPath, ...args]);
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    await once(child, 'close');
    expect(JSON.parse(output || JSON.stringify(errors))).toEqual([
      'EMFILE',
      'EMFILE',
      'EMFILE',
      'EMFILE',
      'up',
    ]);
  },
);
