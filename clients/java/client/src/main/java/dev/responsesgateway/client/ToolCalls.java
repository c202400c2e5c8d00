package dev.responsesgateway.client;

import com.fasterxml.jackson.core.JsonProcessingException;
import dev.responsesgateway.v1.FunctionCall;
import dev.responsesgateway.v1.InputItem;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Answers calls of the model, whatever the functions do. They may block: they get threads of their own. */
final class ToolCalls implements AutoCloseable {
  private final List<Tool> functions;
  private final ToolLoop.Settings settings;
  private final ExecutorService threads = Executors.newCachedThreadPool(ToolCalls::thread);

  ToolCalls(List<Tool> functions, ToolLoop.Settings settings) {
    this.functions = functions;
    this.settings = settings;
  }

  /** The results, in the order of the calls; what is not there after so many nanoseconds is an error. */
  List<InputItem> answer(List<FunctionCall> calls, long nanos) {
    var deadline = nanos == Long.MAX_VALUE ? Long.MAX_VALUE : System.nanoTime() + nanos;
    var places = new Semaphore(settings.maxConcurrency() > 0 ? settings.maxConcurrency() : calls.size());
    var answers = new ArrayList<CompletableFuture<CallReport>>();
    var interrupted = false;
    for (var call : calls) {
      var answer = new CompletableFuture<CallReport>();
      answers.add(answer);
      try {
        if (interrupted || !acquire(places, deadline)) {
          answer.complete(failed(call, new TimeoutException("the tool loop ended"), Duration.ZERO));
          continue;
        }
      } catch (InterruptedException interrupt) {
        interrupted = true;
        answer.complete(failed(call, new CancellationException("the tool loop ended"), Duration.ZERO));
        continue;
      }
      begin(call, answer, places);
    }
    var outputs = new ArrayList<InputItem>();
    for (var index = 0; index < calls.size(); index++) {
      var call = calls.get(index);
      CallReport report;
      try {
        report = interrupted ? now(call, answers.get(index)) : wait(answers.get(index), deadline);
      } catch (TimeoutException late) {
        report = now(call, answers.get(index));
      } catch (InterruptedException interrupt) {
        interrupted = true;
        report = now(call, answers.get(index));
      }
      var told = report;
      Callbacks.guarded("onCall failed", () -> settings.onCall().accept(told));
      outputs.add(Items.callOutput(call.getCallId(), report.output()));
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
    return outputs;
  }

  @Override
  public void close() {
    threads.shutdownNow();
  }

  static String errorResult(String message) {
    try {
      return Schema.MAPPER.writeValueAsString(Map.of("error", message));
    } catch (JsonProcessingException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  private void begin(FunctionCall call, CompletableFuture<CallReport> answer, Semaphore places) {
    var task = threads.submit(Trace.carried(() -> answer.complete(made(call))));
    var timeout = functions.stream().filter(each -> each.name().equals(call.getName())).findFirst().flatMap(Tool::timeout);
    var limit = timeout.orElse(settings.callTimeout());
    if (limit != null) {
      answer.completeOnTimeout(
          failed(call, new TimeoutException("the function did not answer within " + limit.toMillis() + " ms"), limit),
          limit.toMillis(),
          TimeUnit.MILLISECONDS);
    }
    answer.whenComplete(
        (report, problem) -> {
          task.cancel(true);
          places.release();
        });
  }

  private CallReport made(FunctionCall call) {
    var began = System.nanoTime();
    try (var span = Trace.tool(call)) {
      try {
        var function =
            functions.stream()
                .filter(each -> each.name().equals(call.getName()))
                .findFirst()
                .orElseThrow(() -> new IllegalArgumentException("there is no function " + call.getName()));
        approve(call);
        var output = function.call(call.getArguments());
        return new CallReport(call, output == null ? "null" : output, Optional.empty(), since(began));
      } catch (Throwable problem) {
        // Errors too: an assertion in a function is no reason to leave the model without an answer.
        span.failed();
        return failed(call, problem, since(began));
      }
    }
  }

  private void approve(FunctionCall call) throws Exception {
    try {
      if (settings.approval().approve(call)) {
        return;
      }
    } catch (Exception refused) {
      throw new SecurityException("the call was denied: " + text(refused), refused);
    }
    throw new SecurityException("the call was denied");
  }

  private static CallReport failed(FunctionCall call, Throwable problem, Duration duration) {
    return new CallReport(call, errorResult(text(problem)), Optional.of(problem), duration);
  }

  private static String text(Throwable problem) {
    return problem.getMessage() == null ? problem.toString() : problem.getMessage();
  }

  private static Duration since(long began) {
    return Duration.ofNanos(System.nanoTime() - began);
  }

  private static boolean acquire(Semaphore places, long deadline) throws InterruptedException {
    if (deadline == Long.MAX_VALUE) {
      places.acquire();
      return true;
    }
    return places.tryAcquire(deadline - System.nanoTime(), TimeUnit.NANOSECONDS);
  }

  private static CallReport wait(CompletableFuture<CallReport> answer, long deadline)
      throws InterruptedException, TimeoutException {
    try {
      return deadline == Long.MAX_VALUE
          ? answer.get()
          : answer.get(Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
    } catch (ExecutionException impossible) {
      throw new IllegalStateException(impossible);
    }
  }

  private static CallReport now(FunctionCall call, CompletableFuture<CallReport> answer) {
    answer.complete(failed(call, new CancellationException("the tool loop ended"), Duration.ZERO));
    return answer.join();
  }

  private static Thread thread(Runnable work) {
    var thread = new Thread(work, "responses-gateway-tool");
    thread.setDaemon(true);
    return thread;
  }
}
