package dev.responsesgateway.client;

import dev.responsesgateway.v1.FunctionCall;
import java.time.Duration;
import java.util.Optional;

/**
 * A call of a function that was answered.
 *
 * @param call what the model asked for
 * @param output the result that the model gets
 * @param problem why it is an error result; empty if the function gave it
 * @param duration of the function
 */
public record CallReport(FunctionCall call, String output, Optional<Throwable> problem, Duration duration) {}
