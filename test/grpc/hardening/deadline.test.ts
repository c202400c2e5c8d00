import { connect } from 'node:http2';
import { expect, it } from 'vitest';
import { capDeadline } from '../../../src/grpc/hardening/deadline.ts';
import { startGateway } from '../../harness/gateway.ts';

it.each([
  ['600H', '596H'],
  ['99999999H', '596H'],
  ['2592000S', '596H'],
  ['596H', '596H'],
  ['10S', '10S'],
  ['2147483648m', '2147483648m'],
  ['soon', 'soon'],
])('a deadline of %s counts as %s', (given, kept) => {
  const headers = { 'grpc-timeout': given };
  capDeadline(headers);
  expect(headers['grpc-timeout']).toBe(kept);
});

it('a session whose caller gives it 30 days is not cut', async () => {
  await using gateway = await startGateway();
  const connection = connect(`http://${gateway.address}`);
  const stream = connection.request({
    ':method': 'POST',
    ':path': '/responses.gateway.v1.ResponsesService/Connect',
    'content-type': 'application/grpc',
    te: 'trailers',
    'grpc-timeout': '720H',
  });
  stream.write(grpcFrame(Buffer.from([0x0a, 0x00])));
  const ended = new Promise((resolve) => stream.once('close', () => resolve('ended')));
  const opened = new Promise((resolve) => stream.once('data', () => resolve('opened')));
  expect(await Promise.race([opened, ended])).toBe('opened');
  expect([...gateway.server.registry.sessions()]).toHaveLength(1);
  connection.destroy();
});

function grpcFrame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}
