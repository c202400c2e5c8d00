import type { Http2Server, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { type TLSSocket, Server as TlsServer } from 'node:tls';
import {
  answerInWords,
  isGrpc,
  OPENING_NAMES,
  type Opening,
  refuseOpening,
  watchOpening,
} from '../../ground/opening.ts';

/** Told once of each connection whose peer speaks something else than gRPC, in words for the log. Nothing of them is from the peer. */
export type OnWrongProtocol = (found: string, sentence: string) => void;

const UNSUPPORTED_MEDIA_TYPE = 415;
const NOT_GRPC =
  'This port speaks gRPC; found an HTTP/2 request of another kind. Health, metrics and the console are on the admin port (admin.listen).';
const NOT_FOR_BROWSERS =
  'This port speaks gRPC; found gRPC-Web or Connect, which a proxy has to translate (docs/proxies.md, Browsers).';
const NO_ALPN =
  'This port speaks gRPC over TLS, and HTTP/2 was not agreed on: the client has to offer h2 by ALPN.';

const PLAINTEXT: Readonly<Partial<Record<Opening, string>>> = {
  tls: 'This port speaks gRPC without TLS; found TLS. Connect in plaintext, or set tls.cert_file and tls.key_file.',
  http1:
    'This port speaks gRPC, which needs HTTP/2; found HTTP/1.1. A proxy has to forward by HTTP/2 (h2c). Health, metrics and the console are on the admin port (admin.listen).',
  proxy: 'This port does not take the PROXY protocol: turn it off in the balancer.',
};
const SECURE: Readonly<Partial<Record<Opening, string>>> = {
  http2: 'This port speaks gRPC over TLS; found HTTP/2 without TLS. Connect with TLS.',
  http1:
    'This port speaks gRPC over TLS; found HTTP/1.1 without TLS. Connect with TLS and HTTP/2. Health, metrics and the console are on the admin port (admin.listen).',
  proxy: 'This port does not take the PROXY protocol: turn it off in the balancer.',
};

/** Serves a connection that begins as the port wants it; the others are told why not, in their own protocol. */
export function serveRightProtocol(
  http2Server: Http2Server,
  socket: Socket,
  onWrong: OnWrongProtocol,
  serve: () => void,
): void {
  const sentences = isSecure(http2Server) ? SECURE : PLAINTEXT;
  watchOpening(socket, (opening) => {
    const sentence = opening && sentences[opening];
    if (opening === undefined || sentence === undefined) return serve();
    onWrong(OPENING_NAMES[opening], sentence);
    refuseOpening(socket, opening, sentence);
  });
}

/** TLS that did not agree on HTTP/2; Node would answer with a 403. */
export function refuseWithoutAlpn(http2Server: Http2Server, onWrong: OnWrongProtocol): void {
  if (!isSecure(http2Server)) return;
  http2Server.on('unknownProtocol', (socket: TLSSocket) => {
    socket.on('error', ignore);
    watchOpening(socket, (opening = 'http1') => {
      onWrong('TLS without ALPN', NO_ALPN);
      refuseOpening(socket, opening, NO_ALPN);
    });
  });
}

/** True: it was no gRPC request, and has its answer. grpc-js would take gRPC-Web for its own. */
export function refuseRequest(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  onWrong: OnWrongProtocol,
): boolean {
  if (isGrpc(headers)) return false;
  const type = String(headers['content-type'] ?? headers['access-control-request-headers'] ?? '');
  const forBrowsers = /grpc-web|connect|^application\/(?:proto|json)/.test(type);
  const sentence = forBrowsers ? NOT_FOR_BROWSERS : NOT_GRPC;
  onWrong(forBrowsers ? 'gRPC-Web or Connect' : 'an HTTP/2 request without gRPC', sentence);
  answerInWords(stream, headers, UNSUPPORTED_MEDIA_TYPE, sentence);
  return true;
}

function isSecure(http2Server: unknown): boolean {
  return http2Server instanceof TlsServer;
}

function ignore(): void {}
