import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { startGateway, type TestGateway } from '../harness/gateway.ts';

let gateway: TestGateway | undefined;
let client: Client | undefined;

afterEach(async () => {
  client?.close();
  await gateway?.close();
});

/** The status of a call with an empty request. */
function call(path: string): Promise<number> {
  client ??= new Client(gateway?.address ?? '', credentials.createInsecure());
  const same = (bytes: Buffer) => bytes;
  return new Promise((resolve) => {
    client?.makeUnaryRequest(path, same, same, Buffer.alloc(0), new Metadata(), (error) =>
      resolve(error?.code ?? status.OK),
    );
  });
}

describe('the services of the port', () => {
  it('are the gateway, health and what was switched on', async () => {
    gateway = await startGateway({ server: { channelz: true } });
    expect(await call('/grpc.health.v1.Health/Check')).toBe(status.OK);
    expect(await call('/grpc.channelz.v1.Channelz/GetServers')).toBe(status.OK);
    expect(await call('/grpc.channelz.v1.Channelz/GetServer')).toBe(status.NOT_FOUND);
    expect(await call('/no.Such/Method')).toBe(status.UNIMPLEMENTED);
  });

  it('do not tell of the inside by default', async () => {
    gateway = await startGateway({ server: { reflection: false } });
    client = undefined;
    expect(await call('/grpc.channelz.v1.Channelz/GetServers')).toBe(status.UNIMPLEMENTED);
    expect(await call('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo')).toBe(
      status.UNIMPLEMENTED,
    );
  });
});
