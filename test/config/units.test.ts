import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  formatByteSize,
  formatDuration,
  formatHostPort,
  parseByteSize,
  parseDuration,
  parseHostPort,
} from '../../src/config/units.ts';
import { isLoopback } from '../../src/ground/loopback.ts';

test.each([
  ['0', 0],
  ['0s', 0],
  ['250ms', 250],
  ['30s', 30_000],
  ['1.5s', 1_500],
  ['5m', 300_000],
  ['1h30m', 5_400_000],
  ['1d', 86_400_000],
  ['24d', 2_073_600_000],
  ['25d', undefined],
  ['30', undefined],
  ['s', undefined],
  ['-1s', undefined],
  ['1 s', undefined],
  ['1.0005s', undefined],
  ['1S', undefined],
  ['', undefined],
])('duration %s', (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});

test.each([
  ['0', 0],
  ['512B', 512],
  ['1kB', 1_000],
  ['1KiB', 1_024],
  ['1.5KiB', 1_536],
  ['8MiB', 8_388_608],
  ['1GB', 1_000_000_000],
  ['2GiB', 2_147_483_648],
  ['1.0001KiB', undefined],
  ['8', undefined],
  ['8MB!', undefined],
  ['8mib', undefined],
  ['99999999GiB', undefined],
])('size %s', (text, bytes) => {
  expect(parseByteSize(text)).toBe(bytes);
});

test.each([
  ['127.0.0.1:50051', { host: '127.0.0.1', port: 50051 }],
  ['[::1]:0', { host: '::1', port: 0 }],
  ['gateway.internal:443', { host: 'gateway.internal', port: 443 }],
  ['localhost', undefined],
  ['::1:50051', undefined],
  [':50051', undefined],
  ['a:65536', undefined],
  ['a b:1', undefined],
])('address %s', (text, parsed) => {
  expect(parseHostPort(text)).toEqual(parsed);
  if (parsed !== undefined) expect(formatHostPort(parsed)).toBe(text);
});

test('what is formatted parses to the same', () => {
  fc.assert(fc.property(fc.nat(2_073_600_000), (ms) => parseDuration(formatDuration(ms)) === ms));
  fc.assert(fc.property(fc.nat(2 ** 31), (bytes) => parseByteSize(formatByteSize(bytes)) === bytes));
});

test.each([
  ['127.0.0.1', true],
  ['127.9.9.9', true],
  ['::1', true],
  ['localhost', true],
  ['0.0.0.0', false],
  ['::', false],
  ['10.0.0.1', false],
  ['127.0.0.1.example.com', false],
])('loopback %s', (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});
