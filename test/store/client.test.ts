import { describe, expect, it } from 'vitest';
import { StoreError } from '../../src/store/store-error.ts';
import { parseStoreUrl } from '../../src/store/url.ts';
import { AVAILABLE, connectStore, StoreServer } from '../harness/store-server.ts';

describe('the URL of a store', () => {
  it.each([
    ['valkey://cache', { kind: 'single', server: { host: 'cache', port: 6379 }, database: 0 }, false],
    ['rediss://cache:6380/3', { kind: 'single', server: { host: 'cache', port: 6380 }, database: 3 }, true],
    ['valkeys://[::1]:7', { kind: 'single', server: { host: '::1', port: 7 }, database: 0 }, true],
    [
      'redis+sentinel://a,b:2/main/1',
      {
        kind: 'sentinel',
        sentinels: [
          { host: 'a', port: 26379 },
          { host: 'b', port: 2 },
        ],
        primaryName: 'main',
        database: 1,
      },
      false,
    ],
    [
      'valkeys+cluster://a,b:7001',
      {
        kind: 'cluster',
        nodes: [
          { host: 'a', port: 6379 },
          { host: 'b', port: 7001 },
        ],
      },
      true,
    ],
  ])('reads %s', (url, endpoint, tls) => {
    expect(parseStoreUrl(url)).toMatchObject({ endpoint, tls });
  });

  it('reads user and password', () => {
    expect(parseStoreUrl('valkey://me:p%40ss@cache')).toMatchObject({ username: 'me', password: 'p@ss' });
    expect(parseStoreUrl('valkey://:secret@cache')).toMatchObject({
      username: undefined,
      password: 'secret',
    });
  });

  it.each([
    ['http://cache', /not a URL of a store/],
    ['valkey://a,b', /several hosts need \+sentinel or \+cluster/],
    ['valkey://a:0', /not a host and port/],
    ['valkey://a/one', /not the number of a database/],
    ['valkey+cluster://a/1', /no databases/],
    ['valkey+sentinel://a', /names the primary/],
    ['valkey://u:s3cret@a,b', /^(?!.*s3cret)/],
  ])('refuses %s', (url, message) => {
    expect(() => parseStoreUrl(url)).toThrow(message);
  });
});

describe.each(AVAILABLE)('a client of %s', (kind) => {
  it('answers in text and bytes', async () => {
    await using server = await StoreServer.start({ kind });
    const client = await connectStore(server.url, { keyPrefix: 'test:' });
    const key = client.key('a');
    expect(await client.command(key, ['SET', key, Buffer.from([0, 255])])).toBe('OK');
    expect(await client.command(key, ['GET', key], { bytes: true })).toEqual(Buffer.from([0, 255]));
    expect(key).toBe('test:a');
    await client.close();
  });

  it('tells apart what was refused, not sent and unknown', async () => {
    await using server = await StoreServer.start({ kind });
    const client = await connectStore(server.url, { commandTimeoutMs: 100 });
    await expect(client.command('k', ['XADD', 'k', '0-0', 'a', 'b'])).rejects.toMatchObject({
      failure: 'refused',
      code: 'ERR',
    });
    server.stall();
    await expect(client.command('k', ['INCR', 'n'])).rejects.toMatchObject({ failure: 'unknown' });
    server.goOn();
    await expect.poll(() => client.command('k', ['GET', 'n'])).toBe('1');
    await server.kill();
    await expect.poll(() => client.ready).toBe(false);
    await expect(client.command('k', ['INCR', 'n'])).rejects.toMatchObject({ failure: 'not_sent' });
    await client.close();
  });

  it('comes back with a new epoch', async () => {
    await using server = await StoreServer.start({ kind });
    const client = await connectStore(server.url);
    const before = client.epoch;
    await server.kill();
    await expect.poll(() => client.ready).toBe(false);
    await server.run();
    await expect.poll(() => client.epoch, { timeout: 10_000 }).toBeGreaterThan(before);
    expect(await client.command('k', ['PING'])).toBe('PONG');
    await client.close();
  });

  it('never shows what a refused command held', async () => {
    await using server = await StoreServer.start({ kind });
    const client = await connectStore(server.url);
    const error = await client.command('k', ['NOSUCH', 'content']).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(StoreError);
    expect(String(error)).not.toContain('content');
    await client.close();
  });
});
