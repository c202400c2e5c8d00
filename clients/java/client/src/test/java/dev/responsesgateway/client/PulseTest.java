package dev.responsesgateway.client;

import static org.junit.jupiter.api.Assertions.assertFalse;

import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class PulseTest {
  private static final long INTERVAL_MILLIS = 2;

  private final Pulse pulse = new Pulse(TimeUnit.MILLISECONDS.toNanos(INTERVAL_MILLIS));

  @Test
  void whatIsNotReadCannotBeHeard() throws InterruptedException {
    for (var looks = 0; looks < 12; looks++) {
      Thread.sleep(pulse.millisUntilDue());
      assertFalse(pulse.isSilent(true));
      pulse.sends();
    }
  }

  @Test
  void aProcessThatStoodStillHasHeardNothingBecauseOfItself() throws InterruptedException {
    Thread.sleep(20 * INTERVAL_MILLIS);
    assertFalse(pulse.isSilent(false));
  }

  @Test
  @Timeout(300)
  void whoHearsNothingIsSilentInTheEnd() throws InterruptedException {
    while (!pulse.isSilent(false)) {
      Thread.sleep(pulse.millisUntilDue());
      pulse.sends();
    }
  }
}
