package dev.responsesgateway.client;

import java.util.ArrayDeque;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;

/**
 * Runs the program's own code one piece after the other, apart from the session and its lock: it may block, throw, and
 * use or close the session.
 */
final class Callbacks {
  /** What waits behind a callback that blocks; later news are dropped. */
  private static final int MAX_WAITING = 1024;

  /** Threads of the program's code: as many as block at the same time. */
  static final Executor THREADS =
      Executors.newCachedThreadPool(
          work -> {
            var thread = new Thread(work, "responses-gateway-callback");
            thread.setDaemon(true);
            return thread;
          });

  private static final System.Logger LOGGER = System.getLogger("dev.responsesgateway.client");

  private final Executor executor;
  private final ArrayDeque<Runnable> waiting = new ArrayDeque<>();
  private boolean running;
  private boolean dropping;

  Callbacks(Executor executor) {
    this.executor = executor;
  }

  void add(Runnable callback) {
    synchronized (waiting) {
      if (waiting.size() >= MAX_WAITING) {
        if (!dropping) {
          dropping = true;
          // Apart: the session's lock is held here, and the logger may use the session.
          THREADS.execute(() -> report(System.Logger.Level.WARNING, "a callback blocks; news for it are dropped", null));
        }
        return;
      }
      dropping = false;
      waiting.add(callback);
      if (running) {
        return;
      }
      running = true;
    }
    executor.execute(this::run);
  }

  private void run() {
    while (true) {
      Runnable next;
      synchronized (waiting) {
        next = waiting.poll();
        if (next == null) {
          running = false;
          return;
        }
      }
      guarded("a callback failed", next);
    }
  }

  /** Runs the program's code; what it throws is logged. */
  static void guarded(String what, Runnable code) {
    try {
      code.run();
    } catch (Throwable problem) {
      report(System.Logger.Level.ERROR, what, problem);
    }
  }

  private static void report(System.Logger.Level level, String what, Throwable problem) {
    try {
      LOGGER.log(level, what, problem);
    } catch (Throwable worse) {
      // The program's own handler: there is nobody else to tell.
    }
  }
}
