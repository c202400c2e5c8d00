package dev.responsesgateway.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.responsesgateway.v1.CompactResponseRequest;
import dev.responsesgateway.v1.CompactResponseResponse;
import dev.responsesgateway.v1.ResponsesServiceGrpc;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Calls without a session: sent again only where the gateway says that nothing was done. */
@Timeout(300)
class UnaryRetryTest {
  private final AtomicInteger calls = new AtomicInteger();
  private final AtomicInteger tokens = new AtomicInteger();
  private int lastToken = Integer.MAX_VALUE;

  @Test
  void whatWasNotDoneIsSentAgainWithATokenOfItsOwn() throws Exception {
    var answer = compact(failure("safe", 1), failure("safe", 1));
    assertEquals("done", answer.getJson().toStringUtf8());
    assertEquals(3, calls.get());
    assertEquals(3, tokens.get());
  }

  @Test
  void itEndsAfterFourAttempts() {
    var told = failure("safe", 1);
    var failure = assertThrows(StatusException.class, () -> compact(told, told, told, told, told));
    assertEquals(Code.UNAVAILABLE, failure.getStatus().getCode());
    assertEquals(4, calls.get());
  }

  @Test
  void whatMayHaveBeenDoneIsNot() {
    assertThrows(StatusException.class, () -> compact(failure("unknown", 1)));
    assertEquals(1, calls.get());
  }

  @Test
  void aConnectionThatBreaksSaysNothingOfTheWork() {
    assertThrows(StatusException.class, () -> compact(Code.UNAVAILABLE.toStatus().asRuntimeException()));
    assertEquals(1, calls.get());
  }

  @Test
  void nobodyWaitsForAnHour() {
    assertThrows(StatusException.class, () -> compact(failure("safe", 3_600_000)));
    assertEquals(1, calls.get());
  }

  @Test
  void aTokenThatCannotBeHadForALaterAttemptEndsTheCall() {
    lastToken = 1;
    var failure = assertThrows(StatusException.class, () -> compact(failure("safe", 1)));
    var cause = assertInstanceOf(StreamException.class, failure.getCause());
    assertEquals(Reasons.TOKEN_SOURCE_FAILED, cause.reason());
    assertEquals("no token", cause.getCause().getMessage());
    assertEquals(1, calls.get());
  }

  @Test
  void anInterruptInThePauseEndsTheCall() throws Exception {
    var caller = Thread.currentThread();
    var other =
        new Thread(
            () -> {
              try {
                while (calls.get() == 0) {
                  Thread.sleep(10);
                }
                Thread.sleep(200);
              } catch (InterruptedException interrupt) {
                Thread.currentThread().interrupt();
              }
              caller.interrupt();
            });
    other.start();
    assertThrows(StatusException.class, () -> compact(failure("safe", 2_000)));
    assertTrue(Thread.interrupted());
    other.join();
    assertEquals(1, calls.get());
  }

  private CompactResponseResponse compact(StatusRuntimeException... failures) throws StatusException, IOException {
    var plan = List.of(failures);
    var name = InProcessServerBuilder.generateName();
    var service =
        new ResponsesServiceGrpc.ResponsesServiceImplBase() {
          @Override
          public void compactResponse(
              CompactResponseRequest request, StreamObserver<CompactResponseResponse> responses) {
            var number = calls.getAndIncrement();
            if (number < plan.size()) {
              responses.onError(plan.get(number));
              return;
            }
            responses.onNext(CompactResponseResponse.newBuilder().setJson(request.getUpstreamBytes()).build());
            responses.onCompleted();
          }
        };
    var server = InProcessServerBuilder.forName(name).addService(service).build().start();
    try (var client =
        Client.builder()
            .token(this::token)
            .channels(() -> InProcessChannelBuilder.forName(name).build())
            .build()) {
      var request = CompactResponseRequest.newBuilder().setUpstream("done").build();
      return client.stub().withDeadlineAfter(250, TimeUnit.SECONDS).compactResponse(request);
    } finally {
      server.shutdownNow();
    }
  }

  private String token() {
    var number = tokens.incrementAndGet();
    if (number > lastToken) {
      throw new IllegalStateException("no token");
    }
    return "token-" + number;
  }

  private static StatusRuntimeException failure(String replay, long waitMillis) {
    var info =
        ErrorInfo.newBuilder()
            .setReason(Reasons.UPSTREAM_OVERLOADED)
            .setDomain(GatewayException.DOMAIN)
            .putMetadata("replay", replay);
    var wait =
        com.google.protobuf.Duration.newBuilder()
            .setSeconds(waitMillis / 1_000)
            .setNanos((int) (waitMillis % 1_000 * 1_000_000));
    return StatusProto.toStatusRuntimeException(
        com.google.rpc.Status.newBuilder()
            .setCode(Code.UNAVAILABLE.value())
            .addDetails(Any.pack(info.build()))
            .addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(wait).build()))
            .build());
  }
}
