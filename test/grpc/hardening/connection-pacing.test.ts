import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { credentials } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ConnectionPacing } from '../../../src/grpc/hardening/connection-pacing.ts';
import { startGateway } from '../../harness/gateway.ts';
import { openCall } from '../../hostile/raw.ts';

const MALLORY = '192.0.2.1';
const ALICE = '192.0.2.2';

describe('new connections', () => {
  let pacing: ConnectionPacing;
  let served: string[];
  let refused: number;

  beforeEach(() => {
    vi.useFakeTimers({ now: 0 });
    pacing = new ConnectionPacing(Date.now);
    served = [];
    refused = 0;
  });
  afterEach(() => vi.useRealTimers());

  const connect = (address: string) =>
    pacing.arrived(
      address,
      () => served.push(`${address} at ${Date.now()}`),
      () => {
        refused += 1;
      },
    );

  it('of an address that did nothing wrong are served at once', () => {
    for (let n = 0; n < 3; n += 1) connect(MALLORY);
    expect(served).toHaveLength(3);
  });

  it('of an address that broke the protocol are served one a second', () => {
    pacing.offended(MALLORY);
    for (let n = 0; n < 3; n += 1) connect(MALLORY);
    connect(ALICE);
    vi.advanceTimersByTime(10_000);
    expect(served).toEqual([
      `${ALICE} at 0`,
      `${MALLORY} at 1000`,
      `${MALLORY} at 2000`,
      `${MALLORY} at 3000`,
    ]);
  });

  it('keep their distance when the next one offends as well', () => {
    pacing.offended(MALLORY);
    connect(MALLORY);
    connect(MALLORY);
    vi.advanceTimersByTime(1_000);
    pacing.offended(MALLORY);
    connect(MALLORY);
    vi.advanceTimersByTime(10_000);
    expect(served).toEqual([`${MALLORY} at 1000`, `${MALLORY} at 2000`, `${MALLORY} at 3000`]);
  });

  it('are refused when too many of the address wait already', () => {
    pacing.offended(MALLORY);
    for (let n = 0; n < 100; n += 1) connect(MALLORY);
    expect(refused).toBe(36);
    vi.advanceTimersByTime(100_000);
    expect(served).toHaveLength(64);
  });

  it('are served at once again ten seconds after the last offence', () => {
    pacing.offended(MALLORY);
    vi.advanceTimersByTime(10_000);
    connect(MALLORY);
    connect(MALLORY);
    expect(served).toEqual([`${MALLORY} at 10000`, `${MALLORY} at 10000`]);
  });

  it('are not paced for ever: the oldest offence makes room when offenders are very many', () => {
    pacing.offended(MALLORY);
    for (let n = 0; n < 10_000; n += 1) pacing.offended(`2001:db8::${n.toString(16)}`);
    connect(MALLORY);
    expect(served).toEqual([`${MALLORY} at 0`]);
  });
});

const certificate = (name: string) => fileURLToPath(new URL(`../../harness/certs/${name}`, import.meta.url));
const ca = readFileSync(certificate('ca.pem'));

describe.each([
  { over: 'plaintext', tls: undefined, client: credentials.createInsecure(), scheme: 'http' },
  {
    over: 'TLS',
    tls: { certificateFile: certificate('server.pem'), privateKeyFile: certificate('server.key') },
    client: credentials.createSsl(ca),
    scheme: 'https',
  },
])('a gateway over $over whose client resets streams without end', ({ tls, client, scheme }) => {
  it('makes the next connections of the address wait, and serves them and the ones it has', async () => {
    await using gateway = await startGateway({ server: tls === undefined ? {} : { tls } });
    const before = gateway.client({ credentials: client });
    await turn(before);

    await flood(connectHttp2(`${scheme}://localhost:${gateway.port}`, { ca }));
    await turn(before);
    const after = gateway.client({ credentials: client });
    const order: string[] = [];
    const late = turn(after).then(() => order.push('new connection'));
    await turn(before).then(() => order.push('old connection'));
    await late;
    expect(order).toEqual(['old connection', 'new connection']);
    expect(gateway.bugs).toEqual([]);
  });
});

async function turn(client: ReturnType<Awaited<ReturnType<typeof startGateway>>['client']>): Promise<void> {
  const stream = client.connect();
  stream.startTurn({ turn_id: 't1' }, 'hello');
  expect((await stream.turn('t1')).at(-1)?.outcome).toBe('TURN_OUTCOME_COMPLETED');
  stream.cancel();
}

async function flood(session: ClientHttp2Session): Promise<void> {
  session.on('error', () => {});
  await new Promise<void>((resolve) => session.once('connect', () => resolve()));
  for (let n = 0; n < 200 && !session.destroyed; n += 1) {
    for (let each = 0; each < 100 && !session.destroyed; each += 1)
      openCall(session, {}).close(constants.NGHTTP2_CANCEL);
    await nextTurn();
  }
  session.destroy();
}
