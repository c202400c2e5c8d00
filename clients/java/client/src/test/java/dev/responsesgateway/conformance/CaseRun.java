package dev.responsesgateway.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.ByteString;
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.GatewayException;
import dev.responsesgateway.client.GoAway;
import dev.responsesgateway.client.Items;
import dev.responsesgateway.client.Lane;
import dev.responsesgateway.client.Result;
import dev.responsesgateway.client.Session;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.Tool;
import dev.responsesgateway.client.ToolLoop;
import dev.responsesgateway.client.Turn;
import dev.responsesgateway.client.TurnLimitException;
import dev.responsesgateway.client.TurnRequest;
import dev.responsesgateway.v1.InputItem;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;

/** What a case has made so far. */
final class CaseRun implements AutoCloseable {
  private static final long STEP_TIMEOUT_SECONDS = 30;

  private final String address;
  private final Control control;
  private final Map<String, Named> turns = new HashMap<>();
  private final List<Event> sessionEvents = new CopyOnWriteArrayList<>();
  private final List<GoAway> goAways = new CopyOnWriteArrayList<>();
  private final ExecutorService worker = Executors.newSingleThreadExecutor();
  private Client client;
  private Session session;

  interface Control {
    JsonNode post(JsonNode action) throws IOException;
  }

  private record Named(Turn turn, List<Event> events) {}

  /** The arguments of each tool. */
  record Query(String query) {}

  CaseRun(String address, Control control) {
    this.address = address;
    this.control = control;
  }

  void steps(JsonNode steps) throws Exception {
    for (var index = 0; index < steps.size(); index++) {
      var step = steps.get(index).properties().iterator().next();
      var running =
          worker.submit(
              () -> {
                step(step.getKey(), step.getValue());
                return null;
              });
      try {
        running.get(STEP_TIMEOUT_SECONDS, TimeUnit.SECONDS);
      } catch (TimeoutException late) {
        running.cancel(true);
        throw new AssertionError("step " + (index + 1) + " (" + step.getKey() + "): no end in time");
      } catch (ExecutionException failed) {
        throw new AssertionError(
            "step " + (index + 1) + " (" + step.getKey() + "): " + failed.getCause().getMessage(),
            failed.getCause());
      }
    }
  }

  @Override
  public void close() {
    worker.shutdownNow();
    if (session != null) {
      session.close();
    }
    if (client != null) {
      client.close();
    }
  }

  private void step(String name, JsonNode fields) throws Exception {
    switch (name) {
      case "connect" -> connect(fields);
      case "start" -> start(fields);
      case "fork" -> lane(fields.path("lane")).fork(fields.get("to").asText());
      case "until" -> until(fields);
      case "final" -> readToEnd(fields);
      case "steer" -> {
        if (fields.has("turn")) {
          turn(fields.get("turn")).turn().steer(fields.get("text").asText());
        } else {
          lane(fields.path("lane")).steer(fields.get("text").asText());
        }
      }
      case "cancel" -> turn(fields.get("turn")).turn().cancel();
      case "tools" -> tools(fields);
      case "notice" ->
          see(
              event ->
                  event instanceof Event.Notice notice
                      && notice.notice().getKind().equals(fields.get("kind").asText())
                      && (!fields.has("reason")
                          || notice.notice().getReason().equals(fields.get("reason").asText())));
      case "rejected" ->
          see(
              event ->
                  event instanceof Event.Failure failure
                      && event.type().equals("gateway.request.rejected")
                      && failure.error().reason().equals(fields.get("reason").asText()));
      case "go_away" ->
          poll(() -> goAways.stream().anyMatch(seen -> seen.draining() == fields.get("draining").asBoolean()));
      case "session_over" ->
          Compare.equal(
              "reason",
              fields.path("reason").asText(),
              open().closed().get().map(GatewayException::reason).orElse(""));
      case "stats" -> stats(fields);
      case "close" -> open().close();
      case "control" -> control.post(fields);
      default -> throw new AssertionError("unknown step");
    }
  }

  private void connect(JsonNode fields) throws Exception {
    var options = SessionOptions.builder().onEvent(sessionEvents::add).onGoAway(goAways::add);
    if (fields.has("model")) {
      options.model(fields.get("model").asText());
    }
    if (fields.has("upstream")) {
      options.upstream(fields.get("upstream").asText());
    }
    if (fields.has("recovery")) {
      options.recovery(fields.get("recovery").asBoolean());
    }
    if (fields.has("max_buffered_bytes")) {
      options.maxBufferedBytes(fields.get("max_buffered_bytes").asLong());
    }
    options.rawJson(fields.path("raw_json").asBoolean(false)).resume(fields.path("resume").asBoolean(true));
    var builder = Client.builder().address(address);
    if (fields.has("token")) {
      builder.token(fields.get("token").asText());
    }
    client = builder.build();
    expecting(
        fields.path("error"),
        () -> {
          session = client.connect(options.build());
          return null;
        });
  }

  private Session open() throws Exception {
    if (session == null) {
      connect(Compare.JSON.createObjectNode().put("model", "gpt-5.5"));
    }
    return session;
  }

  private Lane lane(JsonNode name) throws Exception {
    return open().lane(name.asText(""));
  }

  private void start(JsonNode fields) throws Exception {
    var lane = lane(fields.path("lane"));
    var request = TurnRequest.builder().input(input(fields.get("input")));
    if (fields.has("instructions")) {
      request.instructions(fields.get("instructions").asText());
    }
    if (fields.has("model")) {
      request.model(fields.get("model").asText());
    }
    if (fields.has("tools")) {
      var tools = new ArrayList<dev.responsesgateway.v1.Tool>();
      fields.get("tools").forEach(tool -> tools.add(Tool.of(tool.asText(), "", Query.class, q -> "").spec()));
      request.tools(tools);
    }
    if (fields.has("store")) {
      request.store(fields.get("store").asBoolean());
    }
    if (fields.has("temperature")) {
      request.create(create -> create.setTemperature(fields.get("temperature").asDouble()));
    }
    if (fields.has("max_output_tokens")) {
      request.create(create -> create.setMaxOutputTokens(fields.get("max_output_tokens").asInt()));
    }
    if (fields.has("extra_json")) {
      request.create(create -> create.setExtraJson(ByteString.copyFromUtf8(fields.get("extra_json").asText())));
    }
    if (fields.has("from")) {
      var from = fields.get("from").asText();
      request.from(turns.containsKey(from) ? turns.get(from).turn().soFar().responseId() : from);
    }
    if (fields.path("new_conversation").asBoolean(false)) {
      request.newConversation();
    }
    if (fields.path("full_history").asBoolean(false)) {
      request.fullHistory();
    }
    if (fields.has("timeout_ms")) {
      request.timeout(Duration.ofMillis(fields.get("timeout_ms").asLong()));
    }
    if (fields.path("wait_on_rate_limit").asBoolean(false)) {
      request.waitOnRateLimit();
    }
    if (fields.has("turn_id")) {
      request.turnId(fields.get("turn_id").asText());
    }
    expecting(
        fields.path("error"),
        () -> {
          var turn =
              fields.path("warm_up").asBoolean(false) ? lane.warmUp(request.build()) : lane.start(request.build());
          turns.put(fields.get("turn").asText(), new Named(turn, new ArrayList<>()));
          return null;
        });
  }

  private List<InputItem> input(JsonNode input) {
    if (input.isTextual()) {
      return Items.text(input.asText());
    }
    if (input.isObject()) {
      return Items.text(input.get("repeat").asText().repeat(input.get("times").asInt()));
    }
    var items = new ArrayList<InputItem>();
    for (var item : input) {
      if (item.has("json")) {
        items.add(Items.json(item.get("json").asText()));
      } else if (item.has("call_id")) {
        items.add(Items.callOutput(item.get("call_id").asText(), item.get("output").asText()));
      } else if (item.has("answer_of")) {
        items.add(Items.message("assistant", turn(item.get("answer_of")).turn().soFar().text()));
      } else {
        items.add(Items.message(item.get("role").asText(), item.get("text").asText()));
      }
    }
    return items;
  }

  private void until(JsonNode fields) {
    var named = turn(fields.get("turn"));
    var missing = fields.path("count").asInt(1);
    for (var event : named.turn()) {
      named.events().add(event);
      if (event.type().equals(fields.get("type").asText()) && --missing == 0) {
        return;
      }
    }
    throw new AssertionError("the turn ended " + missing + " events too early");
  }

  private void readToEnd(JsonNode fields) throws Exception {
    var named = turn(fields.get("turn"));
    expecting(
        fields.path("error"),
        () -> {
          for (var event : named.turn()) {
            named.events().add(event);
          }
          // The result is the one accumulator's, whichever way the turn is read.
          return named.turn().result();
        });
    Compare.result(fields, named.turn().soFar(), named.events());
  }

  private void tools(JsonNode fields) throws Exception {
    var calls = new AtomicInteger();
    var functions = new ArrayList<Tool>();
    for (var entry : fields.get("functions").properties()) {
      functions.add(
          Tool.of(
              entry.getKey(),
              "",
              Query.class,
              query -> {
                calls.incrementAndGet();
                if (entry.getValue().has("error")) {
                  throw new IOException(entry.getValue().get("error").asText());
                }
                return entry.getValue().get("result").asText();
              }));
    }
    var loop = ToolLoop.of(functions.toArray(Tool[]::new));
    if (fields.has("max_turns")) {
      loop = loop.maxTurns(fields.get("max_turns").asInt());
    }
    var events = new ArrayList<Event>();
    var last = new ArrayList<Turn>();
    Result result;
    var limitReached = false;
    try {
      result =
          loop.run(
              lane(fields.path("lane")),
              TurnRequest.builder().input(input(fields.get("input"))).build(),
              turn -> {
                last.add(turn);
                turn.forEach(events::add);
              });
    } catch (TurnLimitException limit) {
      limitReached = true;
      result = limit.result();
    }
    Compare.equal("limit_reached", fields.path("limit_reached").asBoolean(false), limitReached);
    if (fields.has("calls")) {
      Compare.equal("calls", fields.get("calls").asInt(), calls.get());
    }
    turns.put(fields.get("turn").asText(), new Named(last.get(last.size() - 1), events));
    Compare.result(fields, result, events);
  }

  private void stats(JsonNode fields) throws Exception {
    var stats = open().stats();
    if (fields.has("resumes")) {
      Compare.equal("resumes", fields.get("resumes").asInt(), stats.resumes());
    }
    if (fields.has("max_buffered_at_most") && stats.maxBufferedBytes() > fields.get("max_buffered_at_most").asLong()) {
      throw new AssertionError(stats.maxBufferedBytes() + " bytes were buffered");
    }
  }

  private void see(Predicate<Event> matches) throws InterruptedException {
    poll(
        () ->
            sessionEvents.stream().anyMatch(matches)
                || turns.values().stream().anyMatch(named -> named.events().stream().anyMatch(matches)));
  }

  private Named turn(JsonNode name) {
    var named = turns.get(name.asText());
    if (named == null) {
      throw new AssertionError("there is no turn " + name);
    }
    return named;
  }

  private static void expecting(JsonNode wanted, Callable<?> work) throws Exception {
    try {
      work.call();
    } catch (GatewayException error) {
      if (wanted.isMissingNode()) {
        throw new AssertionError(error.reason() + " " + error.code() + ": " + error.getMessage(), error);
      }
      Compare.error(wanted, error);
      return;
    }
    if (!wanted.isMissingNode()) {
      throw new AssertionError("no error, but " + wanted + " was expected");
    }
  }

  private static void poll(BooleanSupplier done) throws InterruptedException {
    while (!done.getAsBoolean()) {
      Thread.sleep(5);
    }
  }
}
