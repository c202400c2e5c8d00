#!/usr/bin/env bash
# Packs the command-line program, installs the tarball somewhere else and uses it there as a stranger would.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH"

work=$(mktemp -d)
gateway=
cleanup() {
  [ -z "$gateway" ] || kill -KILL "$gateway" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

npm run --silent build
npm pack --silent --pack-destination "$work" >"$work/name"
tarball="$work/$(tail -n 1 "$work/name")"
echo "packed $(basename "$tarball"), $(stat -c %s "$tarball") bytes"

files=$(tar -tzf "$tarball")
for wanted in package/dist/main.js package/dist/console/index.html package/dist/console/console.js package/proto/responses/gateway/v1/service.proto package/config.schema.json \
  package/README.md package/LICENSE package/NOTICE; do
  grep -qx "$wanted" <<<"$files" || { echo "missing in the package: $wanted"; exit 1; }
done
if grep -E '^package/(src|test|node_modules|deploy|clients)/' <<<"$files"; then
  echo 'the files above do not belong in the package'
  exit 1
fi

mkdir "$work/elsewhere"
cd "$work/elsewhere"
echo '{ "private": true }' >package.json
npm install --silent --no-audit --no-fund "$tarball"
program="$PWD/node_modules/.bin/responses-gateway"

"$program" --version
"$program" --help >help.txt
grep -q 'Usage: responses-gateway' help.txt
"$program" check-config >/dev/null

"$program" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 >out.txt 2>log.txt &
gateway=$!
for _ in $(seq 300); do
  grep -q '"ready"' log.txt && break
  kill -0 "$gateway" || { cat out.txt log.txt; exit 1; }
  sleep 0.1
done
address=$(sed -n 's/^  gRPC *\([^ ]*\).*/\1/p' out.txt)
admin=$(sed -n 's/^  Admin *http:\/\/\([^ ]*\).*/\1/p' out.txt)
"$program" health --admin-listen "$admin"
test "$(echo 'Hi #say=pong' | "$program" chat --address "$address")" = pong
kill -TERM "$gateway"
wait "$gateway"
gateway=
echo 'the installed package serves, chats and drains'
