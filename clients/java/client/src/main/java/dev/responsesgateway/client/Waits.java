package dev.responsesgateway.client;

import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

final class Waits {
  private Waits() {}

  /** The future's value, or the exception that it failed with, with this thread's stack beside it. */
  static <T> T join(CompletableFuture<T> future) {
    try {
      return future.get();
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
      future.cancel(false);
      throw new CancellationException("interrupted");
    } catch (ExecutionException failed) {
      if (failed.getCause() instanceof GatewayException error) {
        error.addSuppressed(new IllegalStateException("waited for here"));
        throw error;
      }
      throw new IllegalStateException(failed.getCause());
    }
  }
}
