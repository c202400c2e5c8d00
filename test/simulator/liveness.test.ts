import { describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { errorOf, RawClient, simulator } from './support.ts';

describe('the life of a connection', () => {
  it('pings, and closes with 1011 when no pong comes', async () => {
    const running = await simulator({ switches: { pingIntervalMs: 50, pingTimeoutMs: 250 } });
    const polite = await RawClient.open(running);
    const mute = await RawClient.open(running, { autoPong: false });
    expect(await mute.closed).toEqual({ code: 1011, reason: 'keepalive ping timeout' });
    await polite.turn({ input: 'still here' });
  });

  it('selects no subprotocol and no extension', async () => {
    const running = await simulator();
    const socket = new WebSocket(`${running.url}/responses?any=query`, ['openai-insecure-api-key.sk'], {});
    const refused = await new Promise<string>((resolve) =>
      socket.once('error', (error) => resolve(error.message)),
    );
    // Said by the client: it offered one, and a server that knows none must not choose.
    expect(refused).toBe('Server sent no subprotocol');
    const client = await RawClient.open(running, { perMessageDeflate: true });
    expect(client.socket.extensions).toBe('');
  });

  it('answers pings of the client', async () => {
    const client = await RawClient.open(await simulator());
    const pong = new Promise<string>((resolve) =>
      client.socket.once('pong', (data) => resolve(String(data))),
    );
    client.socket.ping('hello');
    expect(await pong).toBe('hello');
  });

  it('ends at the age limit after the running responses, and starts no more', async () => {
    const running = await simulator({
      timing: { tokensPerSecond: 100 },
      switches: { connectionAgeMs: 300, ageCloseCode: 1000 },
    });
    const client = await RawClient.open(running);
    client.create({ stream_id: 'a', input: '#deltas=60' });
    client.create({ stream_id: 'a', input: 'never starts' });
    expect(await client.closed).toMatchObject({ code: 1000 });
    const types = client.frames.map((frame) => frame.type);
    expect(types.slice(-2)).toEqual(['response.completed', 'error']);
    const limit = client.frames.at(-1);
    expect(limit).toEqual({
      type: 'error',
      status: 400,
      error: {
        type: 'invalid_request_error',
        code: 'websocket_connection_limit_reached',
        message: expect.stringContaining('Create a new websocket connection to continue.'),
      },
    });
    await running.journal.until(({ entries }) => entries[1]?.status === 'aborted');
    expect(running.journal.entries[0]?.status).toBe('completed');
  });

  it('cuts running responses at the age limit, if told so', async () => {
    const running = await simulator({ switches: { connectionAgeMs: 250, ageLimit: 'cut' } });
    const client = await RawClient.open(running);
    client.create({ input: '#hang' });
    expect(await client.closed).toMatchObject({ code: 1001 });
    expect(client.frames.at(-1)?.type).toBe('error');
    await running.journal.until(({ entries }) => entries[0]?.status === 'aborted');
  });

  it('says so on an idle connection too', async () => {
    const client = await RawClient.open(await simulator({ switches: { connectionAgeMs: 20 } }));
    expect(errorOf(await client.type('error')).code).toBe('websocket_connection_limit_reached');
    await client.closed;
  });

  it('closes idle connections, and refuses more than the limit of them', async () => {
    const running = await simulator({ switches: { idleTimeoutMs: 300, maxConnections: 1 } });
    const client = await RawClient.open(running);
    await expect(RawClient.open(running)).rejects.toThrow('429');
    expect(await client.closed).toMatchObject({ code: 1001 });
  });

  it.each([
    ['stop', 'aborted'],
    ['finish', 'completed'],
  ] as const)('after a disconnect the generation will %s', async (onDisconnect, status) => {
    const running = await simulator({ timing: { tokensPerSecond: 50 }, switches: { onDisconnect } });
    const client = await RawClient.open(running);
    client.create({ input: '#deltas=100', store: true });
    await client.type('response.output_text.delta');
    client.socket.terminate();
    await running.journal.until((journal) => journal.entries[0]?.status === status);
    expect(running.store.size).toBe(onDisconnect === 'finish' ? 1 : 0);
  });

  it('restarts, cuts and closes on command', async () => {
    const running = await simulator();
    const one = await RawClient.open(running);
    await running.journal.until((journal) => journal.counters.connectionsOpen === 1);
    expect(running.closeConnections()).toBe(1);
    expect((await one.closed).code).toBe(1012);
    const two = await RawClient.open(running);
    await running.journal.until((journal) => journal.counters.connectionsOpen === 1);
    expect(running.cutConnections()).toBe(1);
    expect((await two.closed).code).toBe(1006);
    const three = await RawClient.open(running);
    three.create({ input: '#hang' });
    await three.type('response.created');
    await running.close();
    expect((await three.closed).code).toBe(1006);
    await expect(RawClient.open(running)).rejects.toThrow();
  });
});
