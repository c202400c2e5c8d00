#!/usr/bin/env bash
# @grpc/grpc-js lists "grpc-node.flow_control_window" among its channel options and takes it from a Server without a word, but
# only its client reads it: the windows of a server's streams stay at HTTP/2's 64 KiB, so one upload moves 64 KiB a round
# trip (3 MB over 50 ms: four seconds). They can be set in the settings of the HTTP/2 server beneath.
#
# Version: @grpc/grpc-js 1.14.7. Fails when the server honours the option. Needs Node 20 or later, and npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --no-audit --no-fund --silent @grpc/grpc-js@1.14.7
cat >windows.cjs <<'JS'
const http2 = require('node:http2');
const grpc = require('@grpc/grpc-js');
const OPTION = { 'grpc-node.flow_control_window': 1024 * 1024 };

function ofServer() {
  return new Promise((resolve, reject) => {
    const server = new grpc.Server(OPTION);
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
      if (error) return reject(error);
      const client = http2.connect(`http://127.0.0.1:${port}`);
      client.on('error', reject);
      client.once('remoteSettings', ({ initialWindowSize }) => {
        client.destroy();
        server.forceShutdown();
        resolve(initialWindowSize);
      });
    });
  });
}

function ofClient() {
  return new Promise((resolve) => {
    const server = http2.createServer();
    server.on('session', (session) =>
      session.once('remoteSettings', ({ initialWindowSize }) => {
        session.destroy();
        server.close();
        client.close();
        resolve(initialWindowSize);
      }),
    );
    let client;
    server.listen(0, '127.0.0.1', () => {
      const address = `127.0.0.1:${server.address().port}`;
      client = new grpc.Client(address, grpc.credentials.createInsecure(), OPTION);
      client.waitForReady(Date.now() + 5_000, () => {});
    });
  });
}

(async () => {
  const [server, client] = [await ofServer(), await ofClient()];
  console.log(`@grpc/grpc-js ${require('@grpc/grpc-js/package.json').version}, Node ${process.version}`);
  console.log(`window of streams that a server with the option announces: ${server}`);
  console.log(`window of streams that a client with the option announces: ${client}`);
  process.exit(server === 65535 && client === 1024 * 1024 ? 0 : 1);
})();
JS
node windows.cjs
