package dev.responsesgateway.conformance;

import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Session;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.TurnRequest;
import java.lang.management.ManagementFactory;
import java.util.Locale;

/** This client's part of clients/conformance/bench.ts: reads one turn and prints what its events cost. */
public final class Bench {
  private Bench() {}

  /** Takes its turns from the environment. */
  public static void main(String[] args) {
    try (var client = Client.create();
        var session = client.connect(SessionOptions.builder().model("gpt-5.5").build())) {
      read(session, System.getenv("BENCH_WARM_UP"));
      var cpu = cpuNanos();
      var started = System.nanoTime();
      var events = read(session, System.getenv("BENCH_INPUT"));
      System.out.printf(
          Locale.ROOT,
          "{\"events\":%d,\"seconds\":%f,\"cpuSeconds\":%f}%n",
          events,
          (System.nanoTime() - started) / 1e9,
          (cpuNanos() - cpu) / 1e9);
    }
  }

  private static long read(Session session, String input) {
    return session.start(TurnRequest.builder().input(input).newConversation().build()).stream().count();
  }

  /** Of the whole process, compiler and collector too. */
  private static long cpuNanos() {
    var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    return system.getProcessCpuTime();
  }
}
