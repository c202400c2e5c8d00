package dev.responsesgateway.client;

import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.BlockingClientCall;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.OptionalLong;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The events of one response, up to the one with an outcome. It is read once, by one thread: by its events, or by
 * {@link #result}, which takes what is left into account. Closing it gives the call up, which a background response
 * survives.
 */
public final class ResponseStream implements Iterable<Event>, AutoCloseable {
  private final Supplier<List<dev.responsesgateway.v1.Event>> receive;
  private final Runnable cancel;
  private final Deque<dev.responsesgateway.v1.Event> waiting = new ArrayDeque<>();
  private final Accumulator accumulator = new Accumulator();
  private boolean over;
  private GatewayException failure;
  private OptionalLong lastSequenceNumber = OptionalLong.empty();

  private ResponseStream(Supplier<List<dev.responsesgateway.v1.Event>> receive, Runnable cancel) {
    this.receive = receive;
    this.cancel = cancel;
  }

  /** A stream that calls when it is first read; the end of the call is an exception. */
  static <M> ResponseStream of(
      Client client,
      Supplier<BlockingClientCall<?, M>> open,
      Function<M, List<dev.responsesgateway.v1.Event>> events) {
    var holder = new Opened<M>(client, open);
    return new ResponseStream(() -> events.apply(holder.read()), holder::cancel);
  }

  /** The events. The last one of a response that failed is followed by its {@link TurnException}. */
  public Stream<Event> stream() {
    return StreamSupport.stream(spliterator(), false);
  }

  @Override
  public Iterator<Event> iterator() {
    return new Iterator<>() {
      @Override
      public boolean hasNext() {
        return fill();
      }

      @Override
      public Event next() {
        if (!fill()) {
          throw new NoSuchElementException();
        }
        return take(waiting.remove());
      }
    };
  }

  /**
   * Reads to the end. An incomplete response is no error: see {@link Result#outcome}.
   *
   * @throws TurnException if the response failed
   * @throws StreamException if the call was lost
   */
  public Result result() {
    for (var unused : this) {
      assert unused != null;
    }
    return soFar();
  }

  /** What has been read so far. */
  public Result soFar() {
    return accumulator.result("", "");
  }

  /** Of the last event that was read, for {@link Responses#stream(String, long)}; empty before the first. */
  public OptionalLong lastSequenceNumber() {
    return lastSequenceNumber;
  }

  @Override
  public void close() {
    over = true;
    cancel.run();
  }

  /** Whether there is an event; throws what the response or the call failed with. */
  private boolean fill() {
    while (waiting.isEmpty()) {
      if (failure != null) {
        throw failure;
      }
      if (over) {
        return false;
      }
      try {
        waiting.addAll(receive.get());
      } catch (GatewayException lost) {
        failure = lost;
      }
    }
    return true;
  }

  private Event take(dev.responsesgateway.v1.Event message) {
    accumulator.add(message);
    var event = Event.of(message);
    note(message);
    if (event.outcome().isPresent()) {
      close();
      if (event instanceof Event.Failure failed) {
        failure = failed.error().with(soFar());
      }
    }
    return event;
  }

  /** The typed payloads of most events have the upstream's number. */
  private void note(dev.responsesgateway.v1.Event message) {
    for (var entry : message.getAllFields().entrySet()) {
      if (entry.getKey().getContainingOneof() == null || !(entry.getValue() instanceof com.google.protobuf.Message payload)) {
        continue;
      }
      var number = payload.getDescriptorForType().findFieldByName("sequence_number");
      if (number != null && (!number.hasPresence() || payload.hasField(number))) {
        lastSequenceNumber = OptionalLong.of((long) payload.getField(number));
      }
    }
  }

  /** A call that is made when it is first read. */
  private static final class Opened<M> {
    private final Client client;
    private final Supplier<BlockingClientCall<?, M>> open;
    private BlockingClientCall<?, M> call;

    Opened(Client client, Supplier<BlockingClientCall<?, M>> open) {
      this.client = client;
      this.open = open;
    }

    M read() {
      try {
        if (call == null) {
          call = open.get();
        }
        var message = call.read();
        if (message == null) {
          throw StreamException.inferred(
              io.grpc.Status.Code.INTERNAL, Reasons.PROTOCOL, "the stream ended before the response");
        }
        return message;
      } catch (StatusException | StatusRuntimeException error) {
        throw client.lost(error);
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        cancel();
        throw StreamException.inferred(
            io.grpc.Status.Code.CANCELLED, Reasons.STREAM_LOST, "the thread was interrupted", interrupted);
      }
    }

    void cancel() {
      if (call != null) {
        call.cancel("the stream was closed", null);
      }
    }
  }
}
