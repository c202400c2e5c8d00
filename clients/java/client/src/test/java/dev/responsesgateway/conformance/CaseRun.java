package dev.responsesgateway.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.ByteString;
import dev.responsesgateway.client.Client;
import dev.responsesgateway.client.Event;
import dev.responsesgateway.client.GatewayException;
import dev.responsesgateway.client.GoAway;
import dev.responsesgateway.client.Items;
import dev.responsesgateway.client.Lane;
import dev.responsesgateway.client.Parts;
import dev.responsesgateway.client.Result;
import dev.responsesgateway.client.Retry;
import dev.responsesgateway.client.Session;
import dev.responsesgateway.client.SessionOptions;
import dev.responsesgateway.client.Tool;
import dev.responsesgateway.client.ToolLoop;
import dev.responsesgateway.client.Turn;
import dev.responsesgateway.client.TurnBusyException;
import dev.responsesgateway.client.TurnLimitException;
import dev.responsesgateway.client.TurnRequest;
import dev.responsesgateway.v1.ContentPart;
import dev.responsesgateway.v1.InputItem;
import java.io.IOException;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.stream.Stream;

/** What a case has made so far. */
final class CaseRun implements AutoCloseable {
  private static final long STEP_TIMEOUT_SECONDS = 30;

  private final String address;
  private final Control control;
  private final Map<String, Named> turns = new HashMap<>();
  private final List<Event> sessionEvents = new CopyOnWriteArrayList<>();
  private final List<GoAway> goAways = new CopyOnWriteArrayList<>();
  private final ExecutorService worker = Executors.newSingleThreadExecutor();
  private final List<Session> more = new ArrayList<>();
  private final List<String> log = new CopyOnWriteArrayList<>();
  private final Logger logger = Logger.getLogger("dev.responsesgateway.client");
  private final Handler handler = new LogHandler();
  private final StoredSteps stored = new StoredSteps(this::input);
  private Client client;
  private Session session;
  private CompletableFuture<Session> connecting;
  private volatile boolean logRaises;

  /** Hears what the client reports. */
  private final class LogHandler extends Handler {
    @Override
    public void publish(LogRecord line) {
      log.add(line.getMessage() + " " + line.getThrown());
      if (logRaises) {
        throw new IllegalStateException("a bug in the logger");
      }
    }

    @Override
    public void flush() {}

    @Override
    public void close() {}
  }

  /** What a hook throws. */
  private static final class Bug extends RuntimeException {
    private static final long serialVersionUID = 1L;

    Bug() {
      super("a bug in a hook");
    }
  }

  /** Thrown to leave a loop. */
  private static final class Left extends RuntimeException {
    private static final long serialVersionUID = 1L;
  }

  interface Control {
    JsonNode post(JsonNode action) throws IOException;
  }

  private record Named(Turn turn, List<Event> events) {}

  /** The arguments of each tool. */
  record Query(String query) {}

  CaseRun(String address, Control control) {
    this.address = address;
    this.control = control;
    logger.setUseParentHandlers(false);
    logger.addHandler(handler);
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
    logger.removeHandler(handler);
    more.forEach(Session::close);
    if (session != null) {
      session.close();
    }
    if (client != null) {
      client.close();
    }
  }

  private void step(String name, JsonNode fields) throws Exception {
    switch (name) {
      case "create", "follow", "get", "delete", "cancel_response", "input_items", "count", "models" -> {
        if (client == null) {
          client = Client.builder().address(address).build();
        }
        expecting(
            fields.path("error"),
            () -> {
              stored.step(client, name, fields);
              return null;
            });
      }
      case "connect" -> connect(fields);
      case "connected" ->
          expecting(
              fields.path("error"),
              () -> {
                try {
                  session = connecting.get();
                } catch (ExecutionException problem) {
                  throw problem.getCause() instanceof Exception reason ? reason : problem;
                }
                return session;
              });
      case "start" -> start(fields);
      case "fork" -> lane(fields.path("lane")).fork(fields.get("to").asText());
      case "until" -> until(fields);
      case "final" -> readToEnd(fields);
      case "steer" -> steer(fields);
      case "connect_more" -> {
        open();
        for (var count = fields.get("count").asInt(); count > 0; count--) {
          more.add(client.connect());
        }
      }
      case "second_reader" -> secondReader(fields);
      case "dropped_reader" -> turn(fields.get("turn")).turn().iterator().next();
      case "close_client" -> client.close();
      case "closed" -> Compare.equal("error", Optional.empty(), open().closed().get());
      case "reported" -> poll(() -> log.stream().anyMatch(line -> line.contains(fields.get("text").asText())));
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
                      && failure.error().reason().equals(fields.get("reason").asText()),
              fields.path("count").asInt(1));
      case "go_away" ->
          poll(() -> goAways.stream().anyMatch(seen -> seen.draining() == fields.get("draining").asBoolean()));
      case "session_over" ->
          Compare.equal(
              "reason",
              fields.path("reason").asText(),
              open().closed().get().map(GatewayException::reason).orElse(""));
      case "stats" -> stats(fields);
      case "close" -> open().close();
      case "parse" -> parse(fields);
      case "run" -> {
        var lane = lane(fields.path("lane"));
        var request = TurnRequest.builder().input(input(fields.get("input"))).build();
        Compare.result(fields, Retry.whenSafe(() -> lane.start(request).result()), List.of());
      }
      case "control" -> {
        control.post(fields);
        if (session != null && fields.path("block_clients").asBoolean(false)) {
          // Until the client has noticed that its connection is gone.
          poll(() -> !session.connected());
        }
      }
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
    if (fields.has("max_queued_bytes")) {
      options.maxQueuedBytes(fields.get("max_queued_bytes").asLong());
    }
    if (fields.has("timeout_ms")) {
      options.connectTimeout(Duration.ofMillis(fields.get("timeout_ms").asLong()));
    }
    if (fields.has("heartbeat_ms")) {
      options.heartbeat(Duration.ofMillis(fields.get("heartbeat_ms").asLong()));
    }
    if (fields.has("close_timeout_ms")) {
      options.closeTimeout(Duration.ofMillis(fields.get("close_timeout_ms").asLong()));
    }
    if (fields.has("budget")) {
      var budget = fields.get("budget");
      var money = budget.has("money") ? new BigDecimal(budget.get("money").asText()) : null;
      options.budget(budget.path("tokens").asLong(0), money, budget.path("turns").asInt(0));
    }
    var callbacks = fields.path("callbacks").asText("");
    options.onEvent(
        event -> {
          sessionEvents.add(event);
          if (callbacks.equals("raise")) {
            throw new IllegalStateException("a bug in a callback");
          } else if (callbacks.equals("close")) {
            session.close();
          }
        });
    options.rawJson(fields.path("raw_json").asBoolean(false)).resume(fields.path("resume").asBoolean(true));
    logRaises = fields.path("logger").asText("").equals("raise");
    var builder = Client.builder().address(address);
    if (fields.has("token")) {
      builder.token(fields.get("token").asText());
    }
    if (fields.has("token_source")) {
      var plan = new ArrayDeque<String>();
      fields.get("token_source").forEach(each -> plan.add(each.asText()));
      builder.token(() -> token(plan));
    }
    client = builder.build();
    if (fields.path("later").asBoolean(false)) {
      connecting = client.connectAsync(options.build());
      return;
    }
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

  /** The form of a parsed answer. */
  record Weather(String city, double celsius) {}

  private void parse(JsonNode fields) throws Exception {
    var request = TurnRequest.builder().input(input(fields.get("input"))).build();
    var answer = lane(fields.path("lane")).parse(request, Weather.class);
    var wanted = fields.path("parsed");
    Compare.equal(
        "parsed",
        wanted.isMissingNode()
            ? Optional.empty()
            : Optional.of(new Weather(wanted.get("city").asText(), wanted.get("celsius").asDouble())),
        answer.value());
    Compare.equal("unfit", fields.path("unfit").asBoolean(false), answer.problem().isPresent());
    Compare.result(fields, answer.result(), List.of());
  }

  private static void options(JsonNode options, TurnRequest.Builder request) {
    var strings = new HashMap<String, String>();
    options.path("metadata").properties().forEach(each -> strings.put(each.getKey(), each.getValue().asText()));
    if (!strings.isEmpty()) {
      request.metadata(strings);
    }
    for (var option : options.properties()) {
      var value = option.getValue();
      switch (option.getKey()) {
        case "effort" -> request.effort(value.asText());
        case "verbosity" -> request.verbosity(value.asText());
        case "temperature" -> request.temperature(value.asDouble());
        case "max_output_tokens" -> request.maxOutputTokens(value.asInt());
        case "include" -> request.include(value.get(0).asText());
        case "cache_key" -> request.cacheKey(value.asText());
        case "tool_choice" -> request.toolChoice(value.asText());
        case "tools" -> request.tools(List.of(Tool.json(value.get(0).toString())));
        case "metadata" -> {}
        default -> throw new AssertionError("unknown option " + option.getKey());
      }
    }
  }

  private void start(JsonNode fields) throws Exception {
    var lane = lane(fields.path("lane"));
    var request = TurnRequest.builder().input(input(fields.get("input")));
    options(fields.path("options"), request);
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
      } else if (item.has("parts")) {
        var parts = new ArrayList<ContentPart>();
        for (var part : item.get("parts")) {
          parts.add(part.isTextual() ? Parts.text(part.asText()) : Parts.imageUrl(part.get("image_url").asText()));
        }
        items.add(Items.message(item.get("role").asText(), parts.toArray(ContentPart[]::new)));
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

  private static String token(ArrayDeque<String> plan) {
    String todo;
    synchronized (plan) {
      todo = plan.size() > 1 ? plan.poll() : plan.peek();
    }
    switch (todo) {
      case "raise" -> throw new AssertionError("no token");
      case "hang" -> {
        try {
          Thread.sleep(Long.MAX_VALUE);
        } catch (InterruptedException interrupt) {
          Thread.currentThread().interrupt();
        }
      }
      case "broken" -> {
        return "to\nken";
      }
      default -> {}
    }
    return "token";
  }

  private void steer(JsonNode fields) throws Exception {
    var input = input(fields.get("text"));
    var turn = fields.has("turn") ? turn(fields.get("turn")).turn() : null;
    var lane = lane(fields.path("lane"));
    Callable<Object> steering =
        () -> {
          if (turn == null) {
            lane.steer(input);
          } else {
            turn.steer(input);
          }
          return null;
        };
    if (!fields.path("timed_out").asBoolean(false)) {
      steering.call();
      return;
    }
    var waiting = new FutureTask<>(steering);
    var thread = new Thread(waiting);
    thread.start();
    try {
      waiting.get(fields.get("timeout_ms").asLong(), TimeUnit.MILLISECONDS);
      throw new AssertionError("the steer did not wait");
    } catch (TimeoutException late) {
      thread.interrupt();
      var ended = org.junit.jupiter.api.Assertions.assertThrows(ExecutionException.class, waiting::get);
      Compare.equal("interrupted", CancellationException.class, ended.getCause().getClass());
    }
  }

  private void secondReader(JsonNode fields) throws Exception {
    var turn = turn(fields.get("turn")).turn();
    var first =
        new Thread(
            () -> {
              try {
                turn.result();
              } catch (CancellationException | GatewayException end) {
                // The case is over.
              }
            });
    first.start();
    try {
      poll(() -> first.getState() == Thread.State.WAITING || first.getState() == Thread.State.TIMED_WAITING);
      expecting(fields.path("error"), turn::result);
    } finally {
      first.interrupt();
    }
  }

  private void until(JsonNode fields) throws Exception {
    var named = turn(fields.get("turn"));
    expecting(
        fields.path("error"),
        () -> {
          var missing = fields.path("count").asInt(1);
          for (var event : named.turn()) {
            named.events().add(event);
            if (event.type().equals(fields.get("type").asText()) && --missing == 0) {
              return null;
            }
          }
          throw new AssertionError("the turn ended " + missing + " events too early");
        });
  }

  private void readToEnd(JsonNode fields) throws Exception {
    var named = turn(fields.get("turn"));
    expecting(
        fields.path("error"),
        () -> {
          if (!fields.path("result_only").asBoolean(false)) {
            for (var event : named.turn()) {
              named.events().add(event);
            }
          }
          // The result is the one accumulator's, whichever way the turn is read.
          return named.turn().result();
        });
    Compare.result(fields, named.turn().soFar(), named.events());
  }

  private void tools(JsonNode fields) throws Exception {
    var calls = new AtomicInteger();
    var running = new AtomicInteger();
    var most = new AtomicInteger();
    var began = new CountDownLatch(1);
    var functions = new ArrayList<Tool>();
    for (var entry : fields.get("functions").properties()) {
      functions.add(
          Tool.of(
              entry.getKey(),
              "",
              Query.class,
              query -> {
                calls.incrementAndGet();
                most.accumulateAndGet(running.incrementAndGet(), Math::max);
                began.countDown();
                try {
                  return does(entry.getValue(), this);
                } finally {
                  running.decrementAndGet();
                }
              }));
    }
    var loop = limits(fields, ToolLoop.of(functions.toArray(Tool[]::new)));
    var request = TurnRequest.builder().input(input(fields.get("input")));
    for (var name : fields.path("create_tools")) {
      request.create(create -> create.addTools(Tool.of(name.asText(), "", Query.class, q -> "").spec()));
    }
    var events = new ArrayList<Event>();
    var last = new ArrayList<Turn>();
    var leaveAfter = fields.path("leave_after").asInt(0);
    var lane = lane(fields.path("lane"));
    Callable<Result> run =
        () ->
            loop.run(
                lane,
                request.build(),
                turn -> {
                  last.add(turn);
                  if (fields.has("max_time_ms") && !fields.path("by_turn").asBoolean(false)) {
                    return;
                  }
                  for (var event : turn) {
                    events.add(event);
                    if (last.size() == leaveAfter) {
                      throw new Left();
                    }
                  }
                });
    Result result = null;
    if (fields.path("cancel_in_call").asBoolean(false)) {
      var task = new FutureTask<>(run);
      var thread = new Thread(task);
      thread.start();
      began.await();
      thread.interrupt();
      var ended = org.junit.jupiter.api.Assertions.assertThrows(ExecutionException.class, task::get);
      Compare.equal("cancelled", true, ended.getCause() instanceof CancellationException);
    } else {
      try {
        result = run.call();
        Compare.equal("limit_reached", fields.path("limit_reached").asBoolean(false), false);
        Compare.equal("raises", fields.path("raises").asBoolean(false), false);
      } catch (Left left) {
        Compare.equal("leave_after", last.size(), leaveAfter);
      } catch (Bug bug) {
        Compare.equal("raises", fields.path("raises").asBoolean(false), true);
      } catch (TurnLimitException limit) {
        Compare.equal("limit_reached", fields.path("limit_reached").asBoolean(false), true);
      } catch (GatewayException error) {
        expecting(
            fields.path("error"),
            () -> {
              throw error;
            });
      }
    }
    if (fields.has("calls")) {
      Compare.equal("calls", fields.get("calls").asInt(), calls.get());
    }
    if (fields.has("max_concurrency") && most.get() > fields.get("max_concurrency").asInt()) {
      throw new AssertionError(most + " calls at the same time");
    }
    if (!last.isEmpty()) {
      turns.put(fields.get("turn").asText(), new Named(last.get(last.size() - 1), events));
    }
    if (result != null) {
      Compare.result(fields, result, events);
    }
  }

  private static ToolLoop limits(JsonNode fields, ToolLoop loop) {
    var limited = loop;
    if (fields.has("max_turns")) {
      limited = limited.maxTurns(fields.get("max_turns").asInt());
    }
    if (fields.has("max_time_ms")) {
      limited = limited.maxDuration(Duration.ofMillis(fields.get("max_time_ms").asLong()));
    }
    if (fields.has("max_tokens")) {
      limited = limited.maxTokens(fields.get("max_tokens").asLong());
    }
    if (fields.has("tool_timeout_ms")) {
      limited = limited.callTimeout(Duration.ofMillis(fields.get("tool_timeout_ms").asLong()));
    }
    if (fields.has("max_concurrency")) {
      limited = limited.maxConcurrency(fields.get("max_concurrency").asInt());
    }
    var denied = new ArrayList<String>();
    fields.path("deny").forEach(name -> denied.add(name.asText()));
    var raising = new ArrayList<String>();
    fields.path("raise_in").forEach(hook -> raising.add(hook.asText()));
    return limited
        .approval(
            call -> {
              bug(raising, "approve");
              return !denied.contains(call.getName());
            })
        .onCall(report -> bug(raising, "on_call"))
        .maxCost(
            fields.path("max_cost").asDouble(0),
            spent -> {
              bug(raising, "price");
              return spent.usage().totalTokens();
            });
  }

  private static void bug(List<String> raising, String hook) {
    if (raising.contains(hook)) {
      throw new Bug();
    }
  }

  private static String does(JsonNode function, CaseRun run) throws Exception {
    switch (function.path("close").asText("")) {
      case "session" -> run.session.close();
      case "client" -> run.client.close();
      default -> {}
    }
    if (function.path("hang").asBoolean(false)) {
      Thread.sleep(Long.MAX_VALUE);
    }
    if (function.has("crash")) {
      throw new OutOfMemoryError(function.get("crash").asText());
    }
    if (function.has("error")) {
      throw new IOException(function.get("error").asText());
    }
    return function.has("bytes") ? "x".repeat(function.get("bytes").asInt()) : function.path("result").asText("");
  }

  private void stats(JsonNode fields) throws Exception {
    var session = open();
    if (fields.has("buffered")) {
      poll(() -> session.stats().bufferedBytes() == fields.get("buffered").asLong());
    }
    if (fields.has("running")) {
      poll(() -> session.stats().runningTurns() == fields.get("running").asInt());
    }
    var stats = session.stats();
    if (fields.has("resumes")) {
      Compare.equal("resumes", fields.get("resumes").asInt(), stats.resumes());
    }
    if (fields.has("resumes_at_most") && stats.resumes() > fields.get("resumes_at_most").asInt()) {
      throw new AssertionError(stats.resumes() + " resumes");
    }
    if (fields.has("max_buffered_at_most") && stats.maxBufferedBytes() > fields.get("max_buffered_at_most").asLong()) {
      throw new AssertionError(stats.maxBufferedBytes() + " bytes were buffered");
    }
  }

  private void see(Predicate<Event> matches) throws InterruptedException {
    see(matches, 1);
  }

  private void see(Predicate<Event> matches, int count) throws InterruptedException {
    poll(
        () ->
            Stream.concat(sessionEvents.stream(), turns.values().stream().flatMap(named -> named.events().stream()))
                    .filter(matches)
                    .count()
                >= count);
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
    } catch (TurnBusyException busy) {
      Compare.equal("reason", wanted.path("reason").asText(), busy.reason());
      return;
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
