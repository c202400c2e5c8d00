package dev.responsesgateway.client;

import java.util.Optional;

/**
 * A structured answer. Nothing of a response is lost because it does not fit: the result has all of it.
 *
 * @param result what the turn came to
 * @param value empty if the model refused ({@link Result#refusal}), the answer is not complete ({@link Result#outcome}),
 *     or it does not fit
 * @param problem why a completed answer does not fit
 */
public record Parsed<T>(Result result, Optional<T> value, Optional<Exception> problem) {}
