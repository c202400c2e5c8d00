import { createConnection } from 'node:net';
import { fc, test } from '@fast-check/vitest';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Simulator, startSimulator } from '../../src/simulator/index.ts';
import { type Frame, RawClient, sdk, simulator, TERMINALS } from './support.ts';

let shared: Simulator;

beforeAll(async () => {
  shared = await startSimulator({ journal: { maxEntries: 50 } });
});
afterAll(() => shared.close());

/** Sends frames on a connection of their own, then asks whether the simulator still serves a new one. */
async function survives(frames: readonly (string | Uint8Array)[]): Promise<void> {
  const socket = new WebSocket(`${shared.url}/responses`);
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('open', resolve));
  for (const frame of frames) socket.send(frame);
  const answered = new Promise((resolve) => socket.once('pong', resolve));
  socket.ping();
  await answered;
  socket.terminate();
}

const word = fc.constantFrom(
  'response.create',
  'response.steer',
  'model',
  'm',
  'a',
  '',
  'message',
  'user',
  'function_call',
  'resp_1',
  'function_call_output',
  'reasoning',
  'item_reference',
  'input_text',
  '#tools=3',
  '#bytes=9',
  '#hang',
  '#fail',
);
const key = fc.constantFrom(
  'type',
  'model',
  'input',
  'stream_id',
  'previous_response_id',
  'tools',
  'tool_choice',
  'include',
  'generate',
  'conversation',
  'role',
  'content',
  'text',
  'id',
  'call_id',
  'output',
  'name',
  'parameters',
  'metadata',
  'reasoning',
  'instructions',
  'prompt_cache_options',
  'stream_options',
  'context_management',
  'arguments',
  'encrypted_content',
);
const json = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    word,
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(key, tie('value'), { maxKeys: 6 }),
  ),
})).value;
const create = fc
  .tuple(fc.dictionary(key, json, { maxKeys: 6 }), fc.constantFrom('response.create', 'response.steer'))
  .map(([fields, type]) => JSON.stringify({ model: 'gpt-6-astra', input: 'x', ...fields, type }));
const frame = fc.oneof(
  create,
  create,
  json.map((value) => JSON.stringify(value)),
  fc.string(),
  fc.uint8Array(),
);

describe('nothing that a client sends ends the simulator', () => {
  test.prop([fc.array(frame, { maxLength: 12 })], { numRuns: 150 })('frames of all sorts', async (frames) => {
    await survives(frames);
  });

  test.prop([fc.uint8Array({ minLength: 1, maxLength: 400 })], { numRuns: 40 })(
    'bytes after the upgrade',
    async (bytes) => {
      const socket = createConnection(shared.port, '127.0.0.1');
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.on('error', () => {});
      socket.write(
        'GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
      );
      socket.write(bytes);
      socket.resume();
      socket.end();
      await closed;
      await survives([]);
    },
  );

  test.prop([json], { numRuns: 60 })('bodies over HTTP', async (body) => {
    const response = await fetch(`${shared.httpUrl}/responses`, {
      method: 'POST',
      body: JSON.stringify(body),
    });
    expect(response.status).toBeGreaterThanOrEqual(200);
    await response.body?.cancel();
  });

  it('nesting that overflows a recursive walk', async () => {
    const client = await RawClient.open(await simulator());
    const deep = '['.repeat(100_000) + ']'.repeat(100_000);
    client.send(
      `{"type":"response.create","model":"m","input":[{"type":"compaction_trigger","deep":${deep}}]}`,
    );
    expect((await client.type('error')).status).toBe(500);
    client.send(
      `{"type":"response.create","model":"m","input":"x","metadata":null,"tools":[{"type":"custom","name":"c","d":${deep}}]}`,
    );
    await client.terminal();
    await client.turn({ input: 'fine' });
  });

  it('paths and methods that do not exist', async () => {
    const running = await simulator();
    for (const [method, path] of [
      ['GET', '/'],
      ['PUT', '/responses'],
      ['GET', '/responses/%E0%A4%A'],
      ['POST', '/responses/x/y/z'],
    ]) {
      const response = await fetch(`${running.httpUrl}${path}`, { method: method ?? 'GET' });
      expect(response.status).toBeGreaterThanOrEqual(400);
      await response.text();
    }
    expect((await sdk(running).responses.create({ model: 'm', input: 'x' })).status).toBe('completed');
  });
});

/** A late steer is answered while the next response of its lane may be running. */
function concernsAnother(frame: Frame, id: string): boolean {
  const steer = frame.steer as { previous_response_id: string } | undefined;
  return steer !== undefined && steer.previous_response_id !== id;
}

describe('random schedules', () => {
  const step = fc.record({
    lane: fc.constantFrom('', 'a', 'b', 'c', 'd'),
    input: fc.constantFrom(
      'x',
      '#deltas=40',
      '#fail',
      '#incomplete',
      '#error=500',
      '#reasoning',
      '#messages=3',
    ),
    follow: fc.boolean(),
    steer: fc.boolean(),
  });

  test.prop([fc.array(step, { minLength: 1, maxLength: 40 })], { numRuns: 40 })(
    'every create ends once, lanes never overlap, numbers never skip, the journal agrees',
    async (steps) => {
      const running = await startSimulator({
        switches: { maxInFlight: 3 },
        timing: { tokensPerSecond: 20_000 },
      });
      try {
        const client = await RawClient.open(running);
        const newest = new Map<string, string>();
        for (const { lane, input, follow } of steps) {
          const parent = follow ? newest.get(lane) : undefined;
          const stream = lane === '' ? {} : { stream_id: lane };
          client.create({
            ...stream,
            model: 'gpt-6-astra',
            input,
            ...(parent ? { previous_response_id: parent } : {}),
          });
        }
        const open = new Map<string, { id: string; next: number }>();
        const wishes = steps.map((one) => one.steer);
        let due = steps.length;
        let mostOpen = 0;
        while (due > 0) {
          const got = await client.next();
          const lane = String(got.stream_id ?? '');
          const current = open.get(lane);
          if (got.type === 'response.created') {
            expect(current).toBeUndefined();
            const { id, previous_response_id: parent } = got.response as {
              id: string;
              previous_response_id: string | null;
            };
            if (parent !== null && newest.get(`steered ${parent}`) === lane) due += 1;
            open.set(lane, { id, next: 1 });
            mostOpen = Math.max(mostOpen, open.size);
            if (wishes.pop() === true) client.steer(id, 'stop here');
          } else if (current !== undefined && got.type !== 'error' && !concernsAnother(got, current.id)) {
            expect(got.sequence_number).toBe(current.next);
            current.next += 1;
          }
          if (got.type === 'response.steer.accepted') {
            newest.set(
              `steered ${(got.steer as { previous_response_id: string }).previous_response_id}`,
              lane,
            );
          }
          if (TERMINALS.has(got.type)) {
            due -= 1;
            if (current !== undefined) newest.set(lane, current.id);
            open.delete(lane);
          }
        }
        expect(mostOpen).toBeLessThanOrEqual(3);
        const statuses = running.journal.entries.map((entry) => entry.status);
        expect(statuses.filter((status) => status === 'queued')).toEqual([]);
        client.socket.terminate();
      } finally {
        await running.close();
      }
    },
  );
});
