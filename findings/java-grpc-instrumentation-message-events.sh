#!/bin/sh
# OpenTelemetry's gRPC instrumentation of Java (opentelemetry-grpc-1.6 2.31.1-alpha, SDK of its BOM, grpc-java 1.85.1) and
# long streams. Unless setEmitMessageEvents(false), the span of a stream gets an event for each message in both
# directions, until the SDK's limit of 128 events is reached. What comes after that is dropped, and the event
# `exception`, which tells why a call failed, comes last: a stream that its caller cancels after 3 messages has it, one of
# 100 messages has not. (Go's otelgrpc and Python's instrumentation have no events for messages unless asked.)
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pom.xml" <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>probe</groupId><artifactId>probe</artifactId><version>1</version>
  <dependencyManagement><dependencies><dependency>
    <groupId>io.opentelemetry.instrumentation</groupId>
    <artifactId>opentelemetry-instrumentation-bom-alpha</artifactId>
    <version>2.31.1-alpha</version><type>pom</type><scope>import</scope>
  </dependency></dependencies></dependencyManagement>
  <dependencies>
    <dependency>
      <groupId>io.opentelemetry.instrumentation</groupId><artifactId>opentelemetry-grpc-1.6</artifactId>
    </dependency>
    <dependency><groupId>io.opentelemetry</groupId><artifactId>opentelemetry-sdk-testing</artifactId></dependency>
    <dependency><groupId>io.grpc</groupId><artifactId>grpc-netty-shaded</artifactId><version>1.85.1</version></dependency>
    <dependency><groupId>io.grpc</groupId><artifactId>grpc-stub</artifactId><version>1.85.1</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B -f "$work/pom.xml" dependency:build-classpath -Dmdep.outputFile="$work/classpath" >&2
cat >"$work/Probe.java" <<'JAVA'
import io.grpc.*;
import io.grpc.netty.shaded.io.grpc.netty.*;
import io.grpc.stub.*;
import io.opentelemetry.instrumentation.grpc.v1_6.GrpcTelemetry;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.testing.exporter.InMemorySpanExporter;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.SimpleSpanProcessor;
import java.io.*;
import java.util.concurrent.CountDownLatch;

class Probe {
  static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        public InputStream stream(byte[] value) {
          return new ByteArrayInputStream(value);
        }

        public byte[] parse(InputStream in) {
          try {
            return in.readAllBytes();
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        }
      };
  static final MethodDescriptor<byte[], byte[]> TALK =
      MethodDescriptor.<byte[], byte[]>newBuilder()
          .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
          .setFullMethodName("example.Echo/Talk")
          .setRequestMarshaller(BYTES)
          .setResponseMarshaller(BYTES)
          .build();

  static StreamObserver<byte[]> echo(StreamObserver<byte[]> out) {
    return observer(out::onNext, () -> {}, out::onCompleted);
  }

  static StreamObserver<byte[]> observer(
      java.util.function.Consumer<byte[]> next, Runnable failed, Runnable completed) {
    return new StreamObserver<>() {
      public void onNext(byte[] value) {
        next.accept(value);
      }

      public void onError(Throwable error) {
        failed.run();
      }

      public void onCompleted() {
        completed.run();
      }
    };
  }

  public static void main(String[] args) throws Exception {
    var spans = InMemorySpanExporter.create();
    var provider = SdkTracerProvider.builder().addSpanProcessor(SimpleSpanProcessor.create(spans)).build();
    var sdk = OpenTelemetrySdk.builder().setTracerProvider(provider).build();
    var service =
        ServerServiceDefinition.builder("example.Echo")
            .addMethod(TALK, ServerCalls.asyncBidiStreamingCall(Probe::echo))
            .build();
    var server = NettyServerBuilder.forPort(0).addService(service).build().start();
    for (boolean messageEvents : new boolean[] {true, false}) {
      var telemetry = GrpcTelemetry.builder(sdk).setEmitMessageEvents(messageEvents).build();
      var channel =
          NettyChannelBuilder.forAddress("127.0.0.1", server.getPort())
              .usePlaintext()
              .intercept(telemetry.createClientInterceptor())
              .build();
      for (int messages : new int[] {3, 100}) {
        spans.reset();
        var echoed = new CountDownLatch(messages);
        var over = new CountDownLatch(1);
        var call = channel.newCall(TALK, CallOptions.DEFAULT);
        var in =
            ClientCalls.asyncBidiStreamingCall(
                call, observer(value -> echoed.countDown(), over::countDown, over::countDown));
        for (int n = 0; n < messages; n++) in.onNext(new byte[] {1});
        echoed.await();
        call.cancel("over", new RuntimeException("why"));
        over.await();
        while (spans.getFinishedSpanItems().isEmpty()) Thread.sleep(10);
        var span = spans.getFinishedSpanItems().get(0);
        boolean tells = span.getEvents().stream().anyMatch(event -> event.getName().equals("exception"));
        System.out.println(
            (messageEvents ? "default" : "without") + " " + messages + " messages: "
                + span.getEvents().size() + " of " + span.getTotalRecordedEvents()
                + " events, exception " + tells);
      }
      channel.shutdownNow();
    }
    server.shutdownNow();
  }
}
JAVA
found=$(java -cp "$(cat "$work/classpath")" "$work/Probe.java" 2>/dev/null)
expected='default 3 messages: 7 of 7 events, exception true
default 100 messages: 128 of 201 events, exception false
without 3 messages: 1 of 1 events, exception true
without 100 messages: 1 of 1 events, exception true'
echo "$found"
[ "$found" = "$expected" ] || { echo "this has changed; expected:"; echo "$expected"; exit 1; }
