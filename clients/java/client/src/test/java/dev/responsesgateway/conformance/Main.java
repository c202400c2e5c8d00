package dev.responsesgateway.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** The conformance runner of this client: clients/conformance/README.md has its protocol and the steps. */
public final class Main {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final HttpClient http = HttpClient.newHttpClient();
  private final String url;

  private Main(String url) {
    this.url = url;
  }

  /** Runs all cases that the driver offers. */
  public static void main(String[] args) throws Exception {
    var main = new Main(System.getenv("CONFORMANCE_CONTROL_URL"));
    for (var each : main.exchange(HttpRequest.newBuilder(URI.create(main.url + "/cases")).build())) {
      var started = System.nanoTime();
      var error = main.run(each);
      var line = JSON.createObjectNode().put("case", each.get("name").asText()).put("ok", error == null);
      line.put("error", error).put("ms", (System.nanoTime() - started) / 1e6);
      System.out.println(line);
    }
    // Threads of the HTTP client must not keep the runner alive.
    System.exit(0);
  }

  private String run(JsonNode each) {
    var name = each.get("name").asText();
    try {
      var address = post("/start", name, null).get("address").asText();
      String problem = null;
      try (var run = new CaseRun(address, action -> post("/control", name, action))) {
        run.steps(each.get("steps"));
      } catch (Exception | AssertionError failure) {
        problem = failure.getMessage() == null ? failure.toString() : failure.getMessage();
      }
      var finished = post("/finish", name, null);
      return problem != null || finished.get("ok").asBoolean() ? problem : finished.path("error").asText("finish");
    } catch (IOException | RuntimeException failure) {
      return failure.toString();
    }
  }

  private JsonNode post(String path, String name, JsonNode action) throws IOException {
    var body = JSON.createObjectNode().put("case", name).set("action", action);
    return exchange(
        HttpRequest.newBuilder(URI.create(url + path))
            .POST(HttpRequest.BodyPublishers.ofString(body.toString()))
            .build());
  }

  private JsonNode exchange(HttpRequest request) throws IOException {
    try {
      var response = http.send(request, HttpResponse.BodyHandlers.ofString());
      if (response.statusCode() != 200) {
        throw new IOException(response.body());
      }
      return JSON.readTree(response.body());
    } catch (InterruptedException interrupt) {
      throw new IOException(interrupt);
    }
  }
}
