/** A thread of its own, so that a scrape is answered however busy the gateways of the test are. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parentPort } from 'node:worker_threads';

/** Undefined: it cannot be reached. */
let page: string | undefined = '';
parentPort?.on('message', (next: string | undefined) => {
  page = next;
});
const server = createServer((_request, response) => {
  if (page === undefined) response.destroy();
  else response.end(page);
});
server.listen(0, '127.0.0.1', () => parentPort?.postMessage((server.address() as AddressInfo).port));
