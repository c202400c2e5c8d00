import type { ClientRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { http } from '../ground/http.ts';
import type { ConnectOptions } from './network.ts';

export interface PostOptions {
  /** Default POST. */
  readonly method?: 'GET' | 'POST' | 'DELETE';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly connect: ConnectOptions;
  readonly accept: 'application/json' | 'text/event-stream';
  /** JSON; none: undefined. */
  readonly body: string | undefined;
}

/** Starts a request. Redirects are answers like any other: nothing follows them. */
export function post({ method = 'POST', url, headers, connect, accept, body }: PostOptions): ClientRequest {
  const bytes = body === undefined ? undefined : Buffer.from(body, 'utf8');
  const start = url.protocol === 'https:' ? httpsRequest : http.request;
  const request = start(url, {
    ...connect,
    method,
    headers: {
      ...headers,
      Accept: accept,
      ...(bytes !== undefined && {
        'Content-Type': 'application/json',
        'Content-Length': String(bytes.length),
      }),
    },
  });
  request.end(bytes);
  return request;
}

/** Calls back once a connection stands, encrypted if it has to be; only then can the request have been sent. */
export function onConnected(request: ClientRequest, secure: boolean, connected: () => void): void {
  request.once('socket', (socket) => {
    if (!socket.connecting) connected();
    else socket.once(secure ? 'secureConnect' : 'connect', connected);
  });
}
