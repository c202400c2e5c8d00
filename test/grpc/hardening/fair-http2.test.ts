import { once } from 'node:events';
import { type ClientHttp2Session, constants } from 'node:http2';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { Server } from '@grpc/grpc-js';
import { describe, expect, it, vi } from 'vitest';
import { ConnectionPacing } from '../../../src/grpc/hardening/connection-pacing.ts';
import { type ConnectionEnd, shareHttp2 } from '../../../src/grpc/hardening/fair-http2.ts';
import { FairShare } from '../../../src/session/fair-share.ts';
import { startGateway, type TestGateway } from '../../harness/gateway.ts';
import { grpcFrame, openCall, openHttp2, outcomeOf } from '../../hostile/raw.ts';

const WAIT = { timeout: 30_000 };
const OPEN = Buffer.of(0x0a, 0x00);

async function start(maxUnservedResets?: number) {
  const ended: ConnectionEnd[] = [];
  const gateway = await startGateway({
    server: {
      onConnectionEnd: (reason) => ended.push(reason),
      ...(maxUnservedResets === undefined ? {} : { maxUnservedResets }),
    },
  });
  return { gateway, ended };
}

/** A session over the connection, once the gateway has answered. */
async function opened(connection: ClientHttp2Session) {
  const stream = openCall(connection, {});
  stream.write(grpcFrame(OPEN));
  await once(stream, 'response');
  return stream;
}

/** Opens and resets in one go, so that most are gone before the gateway gets to them. */
function openAndReset(connection: ClientHttp2Session, count: number): void {
  for (let n = 0; n < count && !connection.destroyed; n++)
    openCall(connection, {}).close(constants.NGHTTP2_CANCEL);
}

async function serves(gateway: TestGateway, connection: ClientHttp2Session): Promise<void> {
  const stream = await opened(connection);
  stream.end();
  expect(await outcomeOf(stream)).toBe('status 0');
  expect(gateway.bugs).toEqual([]);
}

describe('a connection that many clients share', () => {
  it('survives when one of them dies with 250 sessions', async () => {
    const { gateway, ended } = await start();
    await using _ = gateway;
    const connection = await openHttp2(gateway.port);
    const stranger = await opened(connection);
    const dying = await Promise.all(Array.from({ length: 250 }, () => opened(connection)));
    for (const stream of dying) stream.close(constants.NGHTTP2_CANCEL);
    await vi.waitUntil(
      () => gateway.server.registry.sessions().filter(({ driver }) => driver.attached).length === 1,
      WAIT,
    );
    expect(stranger.closed).toBe(false);
    await serves(gateway, connection);
    expect(ended).toEqual([]);
    connection.destroy();
  });

  it('survives 250 calls that are given up before they are served', async () => {
    const { gateway, ended } = await start();
    await using _ = gateway;
    const connection = await openHttp2(gateway.port);
    openAndReset(connection, 250);
    await serves(gateway, connection);
    expect(ended).toEqual([]);
    connection.destroy();
  });
});

describe('a connection that does nothing but open and reset', () => {
  it.each([
    ['by default', undefined, 20_000],
    ['as configured', 20, 2_000],
  ])('is closed %s, and the others are not', async (_, maxUnservedResets, most) => {
    const { gateway, ended } = await start(maxUnservedResets);
    await using _gateway = gateway;
    const honest = await openHttp2(gateway.port);
    await serves(gateway, honest);
    const flood = await openHttp2(gateway.port);
    let opened = 0;
    while (!flood.destroyed && opened < most) {
      openAndReset(flood, 100);
      opened += 100;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await vi.waitUntil(() => flood.destroyed, WAIT);
    expect(opened).toBeLessThan(most);
    expect(ended).toHaveLength(1);
    expect(ended[0]).toMatch(/^(resets|protocol)$/);
    await serves(gateway, honest);
    honest.destroy();
  });
});

describe('a client that says good-bye as grpc-go does', () => {
  /** GOAWAY without an error, whose last stream is one of the client's own. */
  const GOODBYE = Buffer.from('0000080700000000000000000100000000', 'hex');

  /** A connection of its own to the gateway, into which it says good-bye. */
  async function relay(port: number) {
    let toGateway: Socket | undefined;
    const server = createServer((client) => {
      const gateway = connectTcp(port, '127.0.0.1');
      toGateway = gateway;
      client.pipe(gateway).pipe(client);
      for (const socket of [client, gateway]) socket.on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
      port: (server.address() as AddressInfo).port,
      sayGoodbye: () => toGateway?.write(GOODBYE),
      close: () => server.close(),
    };
  }

  it.each([
    ['without calls', false, []],
    ['with calls that run', true, ['protocol']],
  ])('%s: its address is not kept waiting', async (_, withCall, expected) => {
    const { gateway, ended } = await start();
    await using _gateway = gateway;
    const between = await relay(gateway.port);
    const leaving = await openHttp2(between.port);
    if (withCall) await opened(leaving);
    else await serves(gateway, leaving);
    const gone = new Promise((resolve) => leaving.once('close', resolve));
    between.sayGoodbye();
    await gone;
    // More than may wait for their turn.
    const next = await Promise.all(Array.from({ length: 80 }, () => openHttp2(gateway.port)));
    await Promise.all(next.map((connection) => serves(gateway, connection)));
    expect(ended).toEqual(expected);
    for (const connection of next) connection.destroy();
    between.close();
  });
});

describe('the HTTP/2 servers of grpc-js', () => {
  const options = {
    fairShare: new FairShare(() => 0),
    pacing: new ConnectionPacing(() => 0),
    connections: undefined,
    maxStreamsPerConnection: 10,
    maxUnservedResets: 10,
    now: () => 0,
    onEnded: () => {},
    onWrongProtocol: () => {},
  };

  it('are within reach', () => {
    expect(() => shareHttp2(new Server(), options)).not.toThrow();
  });

  it('are missed when they are not', () => {
    expect(() => shareHttp2({} as Server, options)).toThrow('grpc-js has changed');
  });
});
