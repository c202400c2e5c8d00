import { connect } from 'node:net';

const TIMEOUT_MS = 5_000;

/**
 * What `health` does, with nothing loaded but a socket: container engines ask every few seconds, and this takes a quarter of
 * the CPU. Resolves with the exit code; undefined: the address is none, which `health` itself tells.
 */
export async function probe(listen: string): Promise<number | undefined> {
  const [, host = '', port = ''] = /^\[?([^\]]+?)\]?:(\d{1,5})$/.exec(listen) ?? [];
  if (host === '' || Number(port) > 65_535) return undefined;
  const address = {
    host: host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host,
    port: Number(port),
  };
  try {
    const { status, body } = await ask(address);
    process.stdout.write(`${body.trim()}\n`);
    return status === '200' ? 0 : 1;
  } catch (error) {
    process.stderr.write(`no answer from http://${listen}/readyz: ${(error as Error).message}\n`);
    return 1;
  }
}

function ask(address: { host: string; port: number }): Promise<{ status: string; body: string }> {
  return new Promise((resolve, reject) => {
    const socket = connect(address, () => socket.write('GET /readyz HTTP/1.0\r\n\r\n'));
    let answer = '';
    socket.setEncoding('utf8').setTimeout(TIMEOUT_MS);
    socket.on('data', (chunk: string) => {
      answer += chunk;
    });
    socket.on('timeout', () => socket.destroy(new Error(`nothing within ${TIMEOUT_MS} ms`)));
    socket.on('error', reject);
    socket.on('end', () => {
      const [head = '', ...rest] = answer.split('\r\n\r\n');
      resolve({ status: /^HTTP\/1\.\d (\d{3})/.exec(head)?.[1] ?? '', body: rest.join('\r\n\r\n') });
      socket.end();
    });
  });
}
