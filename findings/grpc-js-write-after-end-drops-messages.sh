#!/usr/bin/env bash
# grpc-js 1.14.7: a write after the server has ended the call drops messages that have arrived, and tells no OK.
#
# On a bidirectional stream the server sends messages and ends the call with OK, while the client is paused: it has
# read little, and the rest has arrived. If the client writes now (an acknowledgement, a heartbeat: it cannot know of the
# end, which is told only after the last message), grpc-js hands the bytes to Node's HTTP/2 stream, which was ended
# meanwhile. Node destroys a stream that is written to after its end, with all that it still holds. The client gets the few
# messages that had been read before, and then INTERNAL "Write error: write after end" in the place of OK.
# Without the write, all messages come and then OK.
#
# What helps: hold back writes, or do not pause. No call of the API tells that the server has ended.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @grpc/grpc-js@1.14.7

cat >check.mjs <<'JS'
import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { Client, credentials, Server, ServerCredentials, status } from '@grpc/grpc-js';

const MESSAGES = 50;
const same = (value) => value;
const talk = {
  path: '/t.T/Talk',
  requestStream: true,
  responseStream: true,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
};
const server = new Server();
server.addService({ talk }, {
  talk: (call) => {
    call.once('data', () => {
      for (let n = 0; n < MESSAGES; n += 1) call.write(Buffer.alloc(1_000));
      call.end();
    });
  },
});
const port = await new Promise((resolve, reject) =>
  server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
    error ? reject(error) : resolve(bound),
  ),
);

async function read(writes) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const call = client.makeBidiStreamRequest(talk.path, same, same);
  let messages = 0;
  call.on('error', () => {});
  const ended = new Promise((resolve) => call.once('status', resolve));
  call.write(Buffer.from('begin'));
  // One message, and the rest arrives unread.
  await new Promise((resolve) => call.once('data', resolve));
  messages += 1;
  call.pause();
  await setTimeout(500);
  if (writes) call.write(Buffer.from('seen'));
  await setTimeout(500);
  call.on('data', () => {
    messages += 1;
  });
  call.resume();
  const { code, details } = await ended;
  client.close();
  return { all: messages === MESSAGES, code: status[code], details };
}

const quiet = await read(false);
console.log('without a write:', quiet);
const written = await read(true);
console.log('with a write:   ', written);
server.forceShutdown();
assert.deepEqual(quiet, { all: true, code: 'OK', details: 'OK' });
assert.equal(written.all, false);
assert.notEqual(written.code, 'OK');
console.log('as described');
JS
node check.mjs
