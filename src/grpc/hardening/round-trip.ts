/** What a connection has to have; an HTTP/2 session of Node is one. */
export interface Pingable {
  readonly destroyed: boolean;
  /** False, or an exception: it was not sent. */
  ping(done: (error: Error | null) => void): boolean;
}

/**
 * A connection whose other side does not answer is judged by what has arrived until then. Longer than proxies and busy
 * processes on the way stand still: a cancel whose second half is late would end its session.
 */
const MAX_WAIT_MS = 2_000;

/** The ping that is on its way, and the one after it. */
interface Trips {
  readonly current: Promise<void>;
  next: Promise<void> | undefined;
}

const running = new WeakMap<Pingable, Trips>();

/**
 * Resolves when all has arrived that the other side had written before it heard of this moment: HTTP/2 keeps the order of
 * its frames, so the answer to a ping comes behind them. One ping at a time for each connection.
 */
export function roundTrip(connection: Pingable): Promise<void> {
  const trips = running.get(connection);
  // A ping that has left already may be answered before what is asked about.
  if (trips !== undefined) {
    trips.next ??= trips.current.then(() => roundTrip(connection));
    return trips.next;
  }
  const current = ping(connection).finally(() => running.delete(connection));
  running.set(connection, { current, next: undefined });
  return current;
}

function ping(connection: Pingable): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, MAX_WAIT_MS);
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    try {
      if (connection.destroyed) done();
      else connection.ping(done);
    } catch {
      // Closed meanwhile, or as many pings under way as Node allows: the timer ends the wait.
    }
  });
}
