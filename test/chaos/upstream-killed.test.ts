import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import { startGateway } from '../harness/gateway.ts';

const SCRIPT = fileURLToPath(new URL('simulator-process.ts', import.meta.url));
const processes: ChildProcess[] = [];
afterEach(() => {
  for (const child of processes.splice(0)) child.kill('SIGKILL');
});

it('goes on with every conversation after its upstream was killed and came back', async () => {
  const first = await startUpstream(0);
  await using gateway = await startGateway({
    upstreamUrl: `ws://127.0.0.1:${first.port}/v1`,
    limits: { maxDialAttempts: 1_000 },
  });
  const stream = gateway.client().connect({ payload: 'PAYLOAD_FORMAT_BOTH' });
  await stream.opened();
  const create = { store: false };
  stream.startTurn({ turn_id: 'before', create }, 'My name is Ada.');
  await stream.turn('before');
  stream.startTurn({ turn_id: 'cut', create }, 'Count. #deltas=500');
  await stream.event('response.output_text.delta', 'cut');

  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  const cut = (await stream.turn('cut')).at(-1);
  expect(cut).toMatchObject({
    outcome: 'TURN_OUTCOME_FAILED',
    turn_failed: {
      reason: 'UPSTREAM_LINK_LOST',
      replay: 'REPLAY_VERDICT_UNSAFE',
      phase: 'TURN_PHASE_OUTPUT_STARTED',
    },
  });

  // Asked while nobody listens: it waits for the upstream's return instead of failing.
  stream.startTurn({ turn_id: 'after', create }, 'What is my name?');
  await startUpstream(first.port);
  const after = await stream.turn('after');
  expect(after.at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  // The new process has never heard of the first turn: all three items came with this request.
  const completed = JSON.parse(String(after.at(-1)?.json)) as {
    response: { output: { content: { text: string }[] }[] };
  };
  expect(completed.response.output[0]?.content[0]?.text).toContain('sees 3 items');
  expect(stream.events.map(({ notice }) => notice?.kind).filter(Boolean)).toEqual(['recovered', 'replayed']);
  stream.halfClose();
});

async function startUpstream(port: number): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(process.execPath, [SCRIPT, String(port)], { stdio: ['ignore', 'pipe', 'inherit'] });
  processes.push(child);
  const [line] = (await once(child.stdout as NodeJS.EventEmitter, 'data')) as [Buffer];
  return { child, port: Number(/listening (\d+)/.exec(String(line))?.[1]) };
}
