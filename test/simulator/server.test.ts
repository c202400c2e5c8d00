import type { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { simulatorOptionsFromFile } from '../../src/simulator/index.ts';
import { functionTool, RawClient, simulator } from './support.ts';

const fixture = (name: string) => new URL(`fixtures/${name}`, import.meta.url).pathname;

describe('the simulator as a server', () => {
  it('speaks TLS on both transports', async () => {
    const tls = { certFile: fixture('tls-cert.pem'), keyFile: fixture('tls-key.pem') };
    const running = await simulator(simulatorOptionsFromFile({ tls }));
    expect([running.url.split(':')[0], running.httpUrl.split(':')[0]]).toEqual(['wss', 'https']);
    const client = await RawClient.open(running, { rejectUnauthorized: false });
    expect((await client.turn({ input: '#deltas=2000' })).usage.output_tokens).toBe(2000);
  });

  it('serves a tool loop of 20 calls that sends only the new input', async () => {
    const running = await simulator();
    const client = await RawClient.open(running);
    const tools = [functionTool('search'), functionTool('read')];
    let turn = await client.turn({ input: 'Find it. #tools=20', tools });
    while (turn.output[0]?.type === 'function_call') {
      const input = [
        { type: 'function_call_output', call_id: turn.output[0].call_id, output: 'found '.repeat(100) },
      ];
      turn = await client.turn({ input, previous_response_id: turn.id, tools });
    }
    const { entries, counters } = running.journal;
    expect(entries).toHaveLength(21);
    expect(entries.at(-1)).toMatchObject({
      contextItems: 41,
      finalText: expect.stringContaining('20 times'),
    });
    expect(turn.usage.input_tokens).toBeGreaterThan(20 * 150);
    expect(turn.usage.input_tokens - turn.usage.input_tokens_details.cached_tokens).toBeLessThan(250);
    expect(counters.bytesReceived).toBe(entries.reduce((sum, entry) => sum + entry.bytesReceived, 0));
  });

  it('compresses both ways, the context too, where that is switched on and offered', async () => {
    const running = await simulator({ switches: { compression: true } });
    const plain = await RawClient.open(running, { perMessageDeflate: false });
    const client = await RawClient.open(running, { perMessageDeflate: true });
    expect([plain.socket.extensions, client.socket.extensions]).toEqual(['', 'permessage-deflate']);
    const input = Array.from({ length: 1_000 }, (_, n) => `${n * 7919}`).join(' ');
    const sizes: number[][] = [];
    for (const content of [input, input, '#deltas=2000']) {
      const [wantedText, text] = await Promise.all(
        [plain, client].map(async (each) => JSON.stringify((await each.turn({ input: content })).output)),
      );
      expect(withoutIds(text)).toBe(withoutIds(wantedText));
      sizes.push([wireBytes(plain).written, wireBytes(client).written]);
    }
    const [first, second] = sizes as [number[], number[]];
    expect(first[1]).toBeLessThan((first[0] as number) / 2);
    // What was said before costs next to nothing.
    expect((second[1] as number) - (first[1] as number)).toBeLessThan(input.length / 10);
    expect(wireBytes(client).read).toBeLessThan(wireBytes(plain).read / 2);
  });

  it('sends in order what it compresses: more than it buffers, and before a cut', async () => {
    const running = await simulator({ switches: { compression: true } });
    const client = await RawClient.open(running, { perMessageDeflate: true });
    const { output } = await client.turn({ input: '#bytes=3000000' });
    expect(JSON.stringify(output).length).toBeGreaterThan(3_000_000);
    expect(client.frames.every(({ sequence_number }, n) => sequence_number === n)).toBe(true);
    const seen = client.frames.length;
    running.configure({ faults: [{ kind: 'cut', atEvent: 100 }] });
    client.create({ input: '#deltas=200' });
    expect((await client.closed).code).toBe(1006);
    expect(client.frames.slice(seen).map((frame) => frame.sequence_number)).toEqual(
      Array.from({ length: 100 }, (_, n) => n),
    );
  });

  it('counts a resent prefix of this connection as cached', async () => {
    const running = await simulator();
    const client = await RawClient.open(running);
    const first = await client.turn({ input: 'one' });
    const history = [{ role: 'user', content: 'one' }, ...first.output.map(({ id: _id, ...item }) => item)];
    const again = await client.turn({ input: [...history, { role: 'user', content: 'two' }] });
    expect(again.usage.input_tokens_details.cached_tokens).toBeGreaterThan(20);
    const other = await RawClient.open(running);
    const cold = await other.turn({ input: [...history, { role: 'user', content: 'two' }] });
    expect(cold.usage.input_tokens_details.cached_tokens).toBe(0);
  });

  it('serves 100 connections with 10 lanes each at once, every lane its own conversation', async () => {
    const running = await simulator();
    const clients = await Promise.all(Array.from({ length: 100 }, () => RawClient.open(running)));
    await Promise.all(
      clients.map(async (client, c) => {
        const lanes = Array.from({ length: 10 }, (_, n) => `lane_${n}`);
        for (const lane of lanes) client.create({ stream_id: lane, input: `${c} ${lane}` });
        for (const _ of lanes) expect((await client.terminal()).type).toBe('response.completed');
      }),
    );
    const { entries } = running.journal;
    expect(entries).toHaveLength(1000);
    expect(new Set(entries.map((entry) => entry.contextHash)).size).toBe(1000);
    expect(new Set(entries.map((entry) => entry.responseId)).size).toBe(1000);
  });

  it('bounds its journal by entries and by bytes', async () => {
    const running = await simulator({ journal: { maxEntries: 5, maxBytes: 2000 } });
    const client = await RawClient.open(running);
    for (let n = 0; n < 12; n += 1) await client.turn({ input: 'x' });
    expect(running.journal.entries.map((entry) => entry.id)).toEqual([8, 9, 10, 11, 12]);
    await client.turn({ input: 'y'.repeat(3000) });
    expect(running.journal.entries.map((entry) => entry.id)).toEqual([13]);
    await client.turn({ input: '#bytes=1900' });
    await client.turn({ input: 'x' });
    expect(running.journal.entries.map((entry) => entry.id)).toEqual([15]);
    expect(running.journal.counters.requestsWs).toBe(15);
  });
});

function withoutIds(text: string | undefined): string | undefined {
  return text?.replace(/"id":"[^"]*"/g, '');
}

/** Of the TCP connection under a client. */
function wireBytes({ socket }: RawClient): { readonly written: number; readonly read: number } {
  const { bytesWritten, bytesRead } = (socket as unknown as { readonly _socket: Socket })._socket;
  return { written: bytesWritten, read: bytesRead };
}
