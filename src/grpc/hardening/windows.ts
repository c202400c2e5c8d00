import { constants } from 'node:http2';

/** What a connection has to have; an HTTP/2 session of Node's server is one. */
export interface WindowedSession {
  readonly destroyed: boolean;
  setLocalWindowSize(bytes: number): void;
  settings(settings: { initialWindowSize: number }, acknowledged?: () => void): void;
  destroy(error?: Error, code?: number): void;
  on(event: 'stream', listener: (stream: WindowedStream) => void): unknown;
  once(event: 'close', listener: () => void): unknown;
}

export interface WindowedStream {
  /** Bytes that have arrived and that nobody has read. */
  readonly readableLength: number;
  once(event: 'close', listener: () => void): unknown;
}

const KIB = 1024;
const MIB = KIB * KIB;
/** A stream may send so much before it is read: 3 MB over a path of 50 ms take a few round trips instead of fifty. */
export const WIDE_WINDOW_BYTES = MIB;
/** The last one is HTTP/2's default, which holds with any number of streams. */
const WINDOWS_BYTES = [WIDE_WINDOW_BYTES, 256 * KIB, 64 * KIB - 1] as const;
/** What the streams of a connection may have unread: 1,000 default windows. */
const MAX_UNREAD_BYTES = 64 * MIB;
/** Node gives the window of a connection back as soon as bytes arrive, so its size holds no memory. */
const CONNECTION_WINDOW_BYTES = 4 * WIDE_WINDOW_BYTES;
const CHECK_INTERVAL_MS = 100;

/**
 * Gives the streams of a connection windows as wide as its memory allows: the more streams, the narrower. To be called
 * when the connection begins, with `initialWindowSize: WIDE_WINDOW_BYTES` in its first settings.
 */
export function adaptWindows(session: WindowedSession): void {
  session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
  const streams = new Set<WindowedStream>();
  let window: number = WIDE_WINDOW_BYTES;
  let watch: NodeJS.Timeout | undefined;
  const stopWatch = () => {
    clearInterval(watch);
    watch = undefined;
  };
  const adapt = (wanted: number) => {
    if (wanted === window || session.destroyed) return;
    // Until narrower windows are acknowledged the old ones hold, and an attacker never does that.
    if (wanted < window) watch ??= setInterval(check, CHECK_INTERVAL_MS).unref();
    window = wanted;
    session.settings({ initialWindowSize: wanted }, () => {
      if (window === wanted) stopWatch();
    });
  };
  const check = () => {
    let unread = 0;
    for (const stream of streams) unread += stream.readableLength;
    if (unread > MAX_UNREAD_BYTES) session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  };
  session.on('stream', (stream) => {
    streams.add(stream);
    adapt(Math.min(window, windowFor(streams.size)));
    stream.once('close', () => {
      streams.delete(stream);
      // Not at once: a connection on the verge would be told something else with each stream.
      adapt(Math.max(window, windowFor(2 * streams.size)));
    });
  });
  session.once('close', stopWatch);
}

function windowFor(streams: number): number {
  const [wide, middle, narrow] = WINDOWS_BYTES;
  if (streams * wide <= MAX_UNREAD_BYTES) return wide;
  return streams * middle <= MAX_UNREAD_BYTES ? middle : narrow;
}
