package dev.responsesgateway.conformance;

import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.Session;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.Locale;

/** One client's part of scripts/bench-clients.ts: reads turns of the flood server and prints one line of JSON. */
public final class Bench {
  private Bench() {}

  /** Arguments: address, batch, events. */
  public static void main(String[] args) {
    var batch = Integer.parseInt(args[1]);
    var events = Integer.parseInt(args[2]);
    try (var client = Client.builder().address(args[0]).build();
        var session = client.connect()) {
      read(session, events / 4, batch);
      var cpu = cpu();
      var started = System.nanoTime();
      var count = read(session, events, batch);
      System.out.printf(
          Locale.ROOT,
          "{\"events\":%d,\"seconds\":%f,\"cpuMicros\":%d,\"batch\":%d}%n",
          count,
          (System.nanoTime() - started) / 1e9,
          cpu().minus(cpu).toNanos() / 1000,
          batch);
    }
  }

  private static int read(Session session, int events, int batch) {
    var count = 0;
    for (var event : session.start(events + " " + batch)) {
      if (event instanceof Event.TextDelta) {
        count++;
      }
    }
    return count;
  }

  /** Of the whole process. */
  private static Duration cpu() {
    var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    return Duration.ofNanos(system.getProcessCpuTime());
  }
}
