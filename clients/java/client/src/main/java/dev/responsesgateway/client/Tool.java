package dev.responsesgateway.client;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.google.protobuf.ByteString;
import dev.responsesgateway.v1.FunctionTool;
import java.time.Duration;
import java.util.Optional;

/** A function that the model may call. Make it with {@link #of}. */
public final class Tool {
  private final String name;
  private final dev.responsesgateway.v1.Tool spec;
  private final Body body;
  private final Duration timeout;

  /** What a tool does. */
  @FunctionalInterface
  public interface Function<I> {
    /** The result: written as JSON, strings as they are. What it throws goes to the model as {@code {"error": …}}. */
    Object call(I input) throws Exception;
  }

  @FunctionalInterface
  private interface Body {
    String call(String arguments) throws Exception;
  }

  private Tool(String name, dev.responsesgateway.v1.Tool spec, Body body, Duration timeout) {
    this.name = name;
    this.spec = spec;
    this.body = body;
    this.timeout = timeout;
  }

  /** The same function, with its own limit for a call, instead of {@link ToolLoop#callTimeout}. */
  public Tool timeout(Duration limit) {
    return new Tool(name, spec, body, limit);
  }

  Optional<Duration> timeout() {
    return Optional.ofNullable(timeout);
  }

  /**
   * Makes a tool of a function. The arguments are a record: Jackson's annotations name the members
   * ({@code @JsonProperty}) and describe them ({@code @JsonPropertyDescription}); {@code Optional} members may be null.
   *
   * @throws IllegalArgumentException if the record has no JSON Schema
   */
  public static <I extends Record> Tool of(
      String name, String description, Class<I> input, Function<? super I> function) {
    var schema = Schema.of(input);
    var spec =
        FunctionTool.newBuilder()
            .setName(name)
            .setDescription(description)
            .setParameters(ByteString.copyFromUtf8(schema.json()))
            .setStrict(schema.strict());
    return new Tool(
        name,
        dev.responsesgateway.v1.Tool.newBuilder().setFunction(spec).build(),
        arguments -> {
          I parsed;
          try {
            parsed = Schema.MAPPER.readValue(arguments, input);
          } catch (JsonProcessingException mismatch) {
            throw new IllegalArgumentException(
                "the arguments do not fit the schema: " + mismatch.getOriginalMessage(), mismatch);
          }
          var result = function.call(parsed);
          return result instanceof String text ? text : Schema.MAPPER.writeValueAsString(result);
        },
        null);
  }

  /**
   * A tool of the upstream's as its JSON, for {@link TurnRequest.Builder#tools}; for instance {@code
   * {"type":"web_search"}}.
   */
  public static dev.responsesgateway.v1.Tool json(String json) {
    return dev.responsesgateway.v1.Tool.newBuilder().setJson(ByteString.copyFromUtf8(json)).build();
  }

  /** The tool's name. */
  public String name() {
    return name;
  }

  /** What the model is told. */
  public dev.responsesgateway.v1.Tool spec() {
    return spec;
  }

  String call(String arguments) throws Exception {
    return body.call(arguments);
  }
}
