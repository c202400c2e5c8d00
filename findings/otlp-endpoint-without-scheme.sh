#!/usr/bin/env bash
# An OTLP endpoint without a scheme ("collector:4318") is taken in three ways by OpenTelemetry's exporters for
# JavaScript, and none of them is what was meant:
#   gRPC, any host      → https: a TLS handshake at a collector that speaks plain HTTP/2
#   HTTP, an IP address → the variable is dropped, and spans go to http://localhost:4318
#   HTTP, a host name   → the name becomes the URL's scheme; every export fails, nothing is said at start
# The specification asks for a URL with a scheme, and lets gRPC exporters take a bare host.
#
# Versions: @opentelemetry/exporter-trace-otlp-grpc and -proto 0.301.0, @opentelemetry/api 1.10.0.
# Fails when an exporter does something else. Needs node and npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --ignore-scripts --loglevel=error \
  @opentelemetry/api@1.10.0 \
  @opentelemetry/exporter-trace-otlp-grpc@0.301.0 \
  @opentelemetry/exporter-trace-otlp-proto@0.301.0

cat >run.mjs <<'JS'
import { createServer } from 'node:net';
import { diag, DiagLogLevel } from '@opentelemetry/api';

const warnings = [];
const keep = (text) => warnings.push(text);
const logger = { error: keep, warn: keep, info() {}, debug() {}, verbose() {} };
diag.setLogger(logger, DiagLogLevel.WARN);

/** A port, and what a collector there would read first. */
async function collector() {
  const seen = { first: 'nothing', port: 0, close: () => server.close() };
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (bytes) => {
      seen.first = bytes[0] === 0x16 ? 'a TLS handshake' : bytes.toString('latin1', 0, 15).trim();
      socket.destroy();
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  seen.port = server.address().port;
  return seen;
}

const span = {
  name: 'x', kind: 0, ended: true, attributes: {}, links: [], events: [], status: { code: 0 },
  startTime: [1, 0], endTime: [2, 0], duration: [1, 0],
  spanContext: () => ({ traceId: '1'.repeat(32), spanId: '1'.repeat(16), traceFlags: 1 }),
  resource: { attributes: {} }, instrumentationScope: { name: 'x' },
  droppedAttributesCount: 0, droppedEventsCount: 0, droppedLinksCount: 0,
};

async function send(protocol, prefix) {
  const there = await collector();
  warnings.length = 0;
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = `${prefix}:${there.port}`;
  process.env.OTEL_EXPORTER_OTLP_TIMEOUT = '1500';
  const { OTLPTraceExporter } = await import(`@opentelemetry/exporter-trace-otlp-${protocol}`);
  const exporter = new OTLPTraceExporter();
  const atStart = warnings.join();
  const { error } = await new Promise((resolve) => exporter.export([span], resolve));
  const found = { first: there.first, atStart, error: String(error?.message).slice(0, 90) };
  await exporter.shutdown();
  there.close();
  console.log(`${protocol} ${prefix}:PORT`, JSON.stringify(found).replaceAll(String(there.port), 'PORT'));
  return found;
}

function expect(what, holds) {
  if (holds) return;
  console.error(`changed: ${what}`);
  process.exitCode = 1;
}

const grpc = await send('grpc', '127.0.0.1');
expect('gRPC takes a bare host for TLS, without a word', grpc.first === 'a TLS handshake' && grpc.atStart === '');
expect('gRPC with a scheme', (await send('grpc', 'http://127.0.0.1')).first === 'PRI * HTTP/2.0');

const address = await send('proto', '127.0.0.1');
expect('HTTP drops an address without a scheme', address.first === 'nothing' && /falling back/.test(address.atStart));

const name = await send('proto', 'localhost');
const asScheme = /"localhost:"/.test(name.error);
expect('HTTP takes a host name for the scheme', name.first === 'nothing' && name.atStart === '' && asScheme);
expect('HTTP with a scheme', (await send('proto', 'http://localhost')).first === 'POST /v1/traces');
process.exit();
JS
node run.mjs
