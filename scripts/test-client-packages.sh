#!/usr/bin/env bash
# Installs the Python and TypeScript clients into empty projects, as their READMEs say, with the newest and the oldest
# libraries that they allow, and runs a turn against the fake gateway that comes with them. Also: stubs of a user's own
# beside the library `responses`, as proto/README.md says.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sh scripts/client-packages.sh "$work/packages"

echo '== typescript'
mkdir "$work/node" && cd "$work/node"
npm init -y >/dev/null
cat >turn.mjs <<'JS'
import { Client } from '@responses-gateway/client';
import { FakeGateway } from '@responses-gateway/client/testing';
const gateway = await FakeGateway.start();
const client = new Client({ address: gateway.address });
const session = await client.connect();
await session.lane('').run({ input: 'hi' });
gateway.cut();
const { text } = await session.lane('').run({ input: 'hi' });
if (text !== 'ok' || session.stats.resumes !== 1) throw new Error(`${text} ${session.stats.resumes}`);
await session.close();
client.close();
await gateway.close();
JS
for libraries in '' '@grpc/grpc-js@1.11.0 @bufbuild/protobuf@2.5.0'; do
  # shellcheck disable=SC2086 # several words
  npm install --silent --no-audit --no-fund "$work"/packages/*.tgz $libraries
  node turn.mjs
  echo "ok with ${libraries:-the newest}"
done

echo '== python'
cd "$work"
python3 -m venv venv
cat >turn.py <<'PY'
import asyncio

from responses_gateway import Client, aio
from responses_gateway.testing import FakeGateway

with FakeGateway() as gateway:
    with Client(gateway.address) as client, client.connect() as session:
        session.lane().run("hi")
        gateway.cut()
        assert session.lane().run("hi").text == "ok" and session.stats.resumes == 1

    async def main() -> None:
        async with aio.Client(gateway.address) as client, client.connect() as session:
            assert (await session.lane().run("hi")).text == "ok"

    asyncio.run(main())
PY
pip="venv/bin/python -m pip install --quiet --disable-pip-version-check"
for what in "git+file://$root#subdirectory=clients/python" "$work/packages/*.whl grpcio==1.66.0 protobuf==6.31.1"; do
  # shellcheck disable=SC2086 # several words
  $pip --force-reinstall $what
  venv/bin/python turn.py
  echo "ok with ${what##*/}"
done

echo '== stubs of a user beside the library responses'
$pip 'grpcio-tools==1.75.1' responses
mkdir -p acme/gateway
venv/bin/python -m grpc_tools.protoc -I "$root/proto" --python_out=acme --grpc_python_out=acme "$root"/proto/responses/gateway/v1/*.proto
mv acme/responses/gateway/v1/*.py acme/gateway && rm -r acme/responses
sed -i 's/^from responses\.gateway\.v1 import/from . import/' acme/gateway/*.py
venv/bin/python -c 'import responses; from acme.gateway import service_pb2_grpc; assert responses.activate and service_pb2_grpc.ResponsesServiceStub'
echo ok
