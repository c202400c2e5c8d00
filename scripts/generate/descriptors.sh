#!/usr/bin/env bash
# Writes proto/descriptors.binpb: our API and grpc.health.v1, for the reflection service. A set of descriptors is one
# repeated field, so two of them behind one another are one. And proto/api.json, by which the gateway encodes and
# decodes (api.ts). With --check: fails when a file is not up to date.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
buf build --as-file-descriptor-set --exclude-source-info -o "$work/own.binpb"
buf build --as-file-descriptor-set --exclude-source-info node_modules/grpc-health-check/proto -o "$work/health.binpb"
cat "$work/own.binpb" "$work/health.binpb" >"$work/descriptors.binpb"

if [ "${1:-}" = --check ]; then
  cmp "$work/descriptors.binpb" proto/descriptors.binpb || { echo 'stale: proto/descriptors.binpb; run `npm run generate` and commit the result'; exit 1; }
else
  cp "$work/descriptors.binpb" proto/descriptors.binpb
fi
node scripts/generate/api.ts "$@"
