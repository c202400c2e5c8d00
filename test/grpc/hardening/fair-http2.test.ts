import { once } from 'node:events';
import { type ClientHttp2Session, constants } from 'node:http2';
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
