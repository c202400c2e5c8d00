import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SendWindow } from '../../src/upstream/send-window.ts';

const KIB = 1024;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

function createWindow() {
  const pings: string[] = [];
  let opened = 0;
  const window = new SendWindow({
    ping: (payload) => pings.push(payload),
    onOpen: () => {
      opened += 1;
    },
    pongTimeoutMs: 10_000,
  });
  /** Sends until the window is full; returns how much went. */
  const fill = () => {
    let bytes = 0;
    while (window.isOpen() && bytes < 64 * 1024 * KIB) {
      window.sent(16 * KIB);
      bytes += 16 * KIB;
    }
    return bytes;
  };
  const answerAfter = (ms: number, payload = pings.at(-1)) => {
    vi.advanceTimersByTime(ms);
    window.pong(payload ?? '');
  };
  return { window, pings, fill, answerAfter, opened: () => opened };
}

describe('the send window', () => {
  it('lets half a MiB go before the first answer, with four pings on the way', () => {
    const { fill, pings } = createWindow();
    expect(fill()).toBe(512 * KIB);
    expect(pings).toEqual(['sent:131072', 'sent:262144', 'sent:393216', 'sent:524288']);
  });

  it('opens as far as an answer tells of, once for each', () => {
    const { fill, answerAfter, pings, opened } = createWindow();
    fill();
    answerAfter(500, pings[0]);
    expect(opened()).toBe(1);
    // The first answer is the quickest so far: twice the window, of which three quarters are under way.
    expect(fill()).toBe((1024 - 384) * KIB);
    answerAfter(0, pings[0]);
    answerAfter(0, 'sent:1');
    answerAfter(0, 'other');
    expect(opened()).toBe(1);
  });

  it('grows once a round trip while answers are quick, up to 4 MiB', () => {
    const { fill, answerAfter } = createWindow();
    const rounds: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      rounds.push(fill());
      answerAfter(100);
    }
    expect(rounds).toEqual([512, 1024, 2048, 4096, 4096, 4096].map((size) => size * KIB));
  });

  it('does not grow by answers that were under way before it grew', () => {
    const { fill, answerAfter, pings } = createWindow();
    fill();
    for (const payload of [...pings]) answerAfter(10, payload);
    expect(fill()).toBe(1024 * KIB);
  });

  it('stays with a queue on the path, shrinks with a long one, down to 64 KiB', () => {
    const { fill, answerAfter } = createWindow();
    fill();
    answerAfter(50);
    expect(fill()).toBe(1024 * KIB);
    answerAfter(600);
    expect(fill()).toBe(1024 * KIB);
    const sizes: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      answerAfter(2_000);
      sizes.push(fill() / KIB);
    }
    expect(sizes).toEqual([512, 256, 128, 64, 64, 64]);
  });

  it('takes a late first answer for distance, not for a queue', () => {
    const { fill, answerAfter } = createWindow();
    fill();
    answerAfter(1_500);
    expect(fill()).toBe(1024 * KIB);
    answerAfter(1_600);
    expect(fill()).toBe(2048 * KIB);
  });

  it('stands open for a peer that answers no pings', () => {
    const { fill, window, opened, pings } = createWindow();
    fill();
    vi.advanceTimersByTime(10_000);
    expect(opened()).toBe(1);
    expect(window.isOpen()).toBe(true);
    const before = pings.length;
    window.sent(8 * 1024 * KIB);
    expect(window.isOpen()).toBe(true);
    expect(pings.length).toBe(before);
  });

  it('stands open while nobody reads the answers, and begins anew after', () => {
    const { fill, window, opened } = createWindow();
    fill();
    window.suspend();
    expect(opened()).toBe(1);
    window.sent(8 * 1024 * KIB);
    expect(window.isOpen()).toBe(true);
    window.resume();
    expect(fill()).toBe(512 * KIB);
    window.stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});
