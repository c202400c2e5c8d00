import { expect, test } from 'vitest';
import { openingOf } from '../../src/ground/opening.ts';

test.each([
  ['GET / HTTP/1.1\r\n', 'http1'],
  ['POST /x', 'http1'],
  ['PROPFIND /', 'http1'],
  ['PRI * HTTP/2.0\r\n\r\nSM', 'http2'],
  ['PRINT /', 'http1'],
  ['PROXY TCP4 192.0.2.1', 'proxy'],
  ['\r\n\r\n\0\r\nQUIT\n\x21', 'proxy'],
  ['\x16\x03\x01\x02\x00\x01', 'tls'],
  ['\x16\x04', 'unknown'],
  ['SSH-2.0-OpenSSH', 'unknown'],
  ['get / ', 'unknown'],
  ['ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'unknown'],
  ['\0\0', 'unknown'],
])('%j begins as %s, and is not judged before that is sure', (text, wanted) => {
  const bytes = Buffer.from(text, 'latin1');
  expect(openingOf(bytes)).toBe(wanted);
  const early = Array.from({ length: bytes.length }, (_, length) => openingOf(bytes.subarray(0, length)));
  expect(early.filter((each) => each !== undefined && each !== wanted)).toEqual([]);
});
