/** Where an endpoint comes from, and how it will be spoken to. */
export interface EndpointInUse {
  /** Of the variable or setting, for people. */
  readonly name: string;
  readonly value: string;
  readonly exporter: 'otlp-grpc' | 'otlp-http';
  /** `v1/traces` where the value is for one signal alone, and so taken as it is over HTTP; undefined: a base URL. */
  readonly ownPath: string | undefined;
}

const GRPC_PORT = '4317';
const HTTP_PORT = '4318';

/** What is probably wrong with an endpoint, in a sentence; undefined when nothing is. Exporters only say "failed". */
export function endpointComplaint({ name, value, exporter, ownPath }: EndpointInUse): string | undefined {
  const found = `${name}: found ${JSON.stringify(withoutPassword(value))}`;
  const grpc = exporter === 'otlp-grpc';
  if (!/^https?:\/\//i.test(value)) {
    const why = grpc ? ', which gRPC takes for TLS' : '';
    return `${found}, without http:// or https://${why}; allowed: a URL such as http://collector:${grpc ? GRPC_PORT : HTTP_PORT}`;
  }
  if (!URL.canParse(value)) return `${found}; allowed: a URL such as http://collector:4318`;
  const { port, pathname } = new URL(value);
  if (!grpc && port === GRPC_PORT)
    return `${found}, the port for gRPC, but OTLP is sent over HTTP; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use port ${HTTP_PORT}`;
  if (grpc && port === HTTP_PORT)
    return `${found}, the port for HTTP, but OTLP is sent over gRPC; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use port ${GRPC_PORT}`;
  if (grpc && pathname !== '/') return `${found}, with a path, which gRPC does not have`;
  if (!grpc && ownPath !== undefined && pathname === '/')
    return `${found}, which is used for this signal as it is; collectors listen at ${withoutPassword(new URL(ownPath, value).href)}`;
  return undefined;
}

/** The SDK hands on errors as JSON, stack and all. */
const MAX_COMPLAINT_LENGTH = 300;

/** What an exporter says of its failure, and in a sentence what that means where the protocol is probably the wrong one. */
export function exportComplaint(message: string): string {
  const text = (errorIn(message) ?? message).slice(0, MAX_COMPLAINT_LENGTH);
  if (/Parse Error: Expected HTTP\//.test(text))
    return `${text}; what answers there speaks HTTP/2: for the gRPC port of a collector (${GRPC_PORT}) set OTEL_EXPORTER_OTLP_PROTOCOL=grpc`;
  if (/Protocol error/.test(text))
    return `${text}; what answers there speaks no gRPC: for the HTTP port of a collector (${HTTP_PORT}) set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`;
  if (/wrong version number|packet length too long/i.test(text))
    return `${text}; what answers there speaks no TLS: write http:// where the collector has none`;
  return text;
}

function errorIn(message: string): string | undefined {
  try {
    const { message: text } = JSON.parse(message) as { readonly message?: unknown };
    return typeof text === 'string' ? text : undefined;
  } catch {
    return undefined;
  }
}

/** Some collectors are given theirs in the URL. */
function withoutPassword(url: string): string {
  return url.replace(/^(\w+:\/\/)?.*@/, '$1***@');
}
