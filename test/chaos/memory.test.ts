import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import { TestClient } from '../harness/client.ts';

/** 10,000 with `npm run check -- chaos`; the normal run shows the same with fewer. */
const SESSIONS = Number(process.env.CHAOS_SESSIONS ?? 1_000);
const AT_ONCE = 25;
const SCRIPT = fileURLToPath(new URL('gateway-process.ts', import.meta.url));

let child: ChildProcess | undefined;
afterEach(() => {
  child?.kill('SIGKILL');
});

it(`gives back the memory of ${SESSIONS} sessions`, { timeout: 600_000 }, async () => {
  child = spawn(process.execPath, ['--expose-gc', SCRIPT], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  const client = new TestClient(`127.0.0.1:${port}`);
  // Warm first: compiled code, pools and caches are not what a session costs.
  await openAndClose(client, 500, 'w');
  const before = await inUse(child);
  await openAndClose(client, SESSIONS, 's');
  const after = await inUse(child);
  client.close();
  console.info(
    `in use before ${before.bytes}, after ${SESSIONS} sessions ${after.bytes} (${((after.bytes / before.bytes - 1) * 100).toFixed(1)} %)`,
  );
  expect(after.bugs).toBe(0);
  expect(after.bytes).toBeLessThan(before.bytes * 1.1);
});

async function openAndClose(client: TestClient, count: number, name: string): Promise<void> {
  for (let done = 0; done < count; done += AT_ONCE) {
    await Promise.all(
      Array.from({ length: AT_ONCE }, async (_, n) => {
        const stream = client.connect();
        await stream.opened();
        // Stored responses would be the simulator's memory, which shares the process.
        stream.startTurn({ turn_id: `${name}${done + n}`, create: { store: false } }, 'Hello #deltas=3');
        await stream.turn(`${name}${done + n}`);
        stream.halfClose();
        await stream.ended();
      }),
    );
  }
}

async function inUse(process: ChildProcess): Promise<{ bytes: number; bugs: number }> {
  process.send('measure');
  const [facts] = (await once(process, 'message')) as [{ bytes: number; bugs: number }];
  return facts;
}
