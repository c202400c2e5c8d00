#!/usr/bin/env bash
# Installs the clients into empty projects, as their READMEs say, and runs a turn against the fake gateway that comes with
# them: scripts/test-client-packages.sh [--short] [python] [typescript] [java] [go]. In full with the newest and the oldest
# libraries that they allow; also stubs of a user's own beside the library `responses`, as proto/README.md says. In short
# with the libraries that are installed for the clients' own tests, and without Java, whose examples are tested with its
# artefacts in any case.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
short=
if [ "${1:-}" = --short ]; then short=yes && shift; fi
[ $# -gt 0 ] || set -- typescript python java go
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

typescript() {
  sh "$root/scripts/client-packages.sh" "$work/packages" typescript >/dev/null
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
  local versions=('')
  [ "$short" ] || versions+=('@grpc/grpc-js@1.12.6 @bufbuild/protobuf@2.5.0')
  for libraries in "${versions[@]}"; do
    # shellcheck disable=SC2086 # several words
    npm install --silent --no-audit --no-fund --prefer-offline "$work"/packages/*.tgz $libraries
    node turn.mjs
    echo "ok with ${libraries:-the newest}"
  done
}

python() {
  cd "$work"
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
  sh "$root/scripts/client-packages.sh" "$work/packages" python >/dev/null
  if [ "$short" ]; then
    local has="$root/.cache/python/bin/python"
    "$has" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/site" "$work"/packages/*.whl
    PYTHONPATH="$work/site" "$has" turn.py
    echo 'ok with the libraries of its tests'
    return
  fi
  python3 -m venv venv
  local pip="venv/bin/python -m pip install --quiet --disable-pip-version-check"
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
}

java() {
  mkdir "$work/maven" && cd "$work/maven"
  cat >Turn.java <<'JAVA'
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.StreamException;
import dev.responsesgateway.testing.FakeGateway;

public class Turn {
  public static void main(String[] args) {
    try (var gateway = FakeGateway.start();
        var client = gateway.client();
        var session = client.connect()) {
      session.start("hi").result();
      gateway.cut();
      var text = session.start("hi").result().text();
      if (!text.equals("ok") || session.stats().resumes() != 1) {
        throw new AssertionError(text + " " + session.stats());
      }
    }
    // Over the transport on the class path.
    try (var client = Client.builder().address("127.0.0.1:1").build()) {
      client.connect();
    } catch (StreamException failure) {
      if (!failure.reason().equals("UNREACHABLE")) {
        throw failure;
      }
    }
  }
}
JAVA
  sh "$root/scripts/client-packages.sh" "$work/packages" java >/dev/null
  local version
  version=$(sed -n '/responses-gateway-parent/{n;s/.*<version>\(.*\)<.*/\1/p}' "$root/clients/java/pom.xml")
  # What was loaded before is there; our own comes from the packages.
  cp -al "$HOME/.m2/repository" "$work/m2" 2>/dev/null || cp -r "$HOME/.m2/repository" "$work/m2"
  rm -rf "$work/m2/dev/responsesgateway"
  for transport in netty okhttp; do
    local client='' other=''
    if [ "$transport" = okhttp ]; then
      client='<exclusions><exclusion><groupId>io.grpc</groupId><artifactId>grpc-netty-shaded</artifactId></exclusion></exclusions>'
      other="<dependency><groupId>io.grpc</groupId><artifactId>grpc-okhttp</artifactId><version>$(sed -n 's/.*<grpc.version>\(.*\)<.*/\1/p' "$root/clients/java/pom.xml")</version></dependency>"
    fi
    cat >pom.xml <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId>
  <artifactId>empty</artifactId>
  <version>1</version>
  <repositories>
    <repository><id>packages</id><url>file://$work/packages/maven</url></repository>
  </repositories>
  <dependencies>
    <dependency><groupId>dev.responsesgateway</groupId><artifactId>responses-gateway-client</artifactId><version>$version</version>$client</dependency>
    <dependency><groupId>dev.responsesgateway</groupId><artifactId>responses-gateway-testing</artifactId><version>$version</version></dependency>
    $other
  </dependencies>
</project>
XML
    mvn -B -ntp -q -Dmaven.repo.local="$work/m2" org.apache.maven.plugins:maven-dependency-plugin:3.9.0:build-classpath -Dmdep.outputFile=classpath
    if [ "$transport" = okhttp ] && grep -q netty classpath; then
      echo 'netty is there though nobody wants it' >&2
      exit 1
    fi
    command java -cp "$(cat classpath)" Turn.java
    echo "ok with $transport"
  done
}

go() {
  if [ "$short" ]; then
    sh "$root/clients/go/install-test.sh"
    echo 'ok with a replace'
    return
  fi
  sh "$root/scripts/client-packages.sh" "$work/packages" go >/dev/null
  mkdir "$work/go" && cd "$work/go"
  cat >turn_test.go <<'GO'
package turn

import (
	"testing"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	"github.com/responses-gateway/responses-gateway/clients/go/gatewaytest"
)

func TestTurn(t *testing.T) {
	server := gatewaytest.NewServer(t, func(turn *gatewaytest.Turn) { turn.Say("ok") })
	session, err := server.Client(t).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	turn, err := session.Start(t.Context(), gateway.Request{Input: gateway.Text("hi")})
	if err != nil {
		t.Fatal(err)
	}
	if result, err := turn.Final(t.Context()); err != nil || result.Text() != "ok" {
		t.Fatal(result, err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
}
GO
  local module=github.com/responses-gateway/responses-gateway
  # The checksum database knows nothing of a folder.
  local loaded
  loaded="file://$(command go env GOMODCACHE)/cache/download"
  export GOPROXY="file://$work/packages/goproxy,$loaded,$(command go env GOPROXY)" GONOSUMDB="$module/*" GOFLAGS=-modcacherw
  export GOMODCACHE="$work/modules"
  command go mod init example.com/turn 2>/dev/null
  command go get "$module/clients/go@v$(node -p "require('$root/package.json').version")" 2>/dev/null
  command go mod tidy 2>/dev/null
  command go test .
}

for language in "$@"; do
  echo "== $language"
  ("$language")
done
