package dev.responsesgateway.client;

import io.grpc.Status.Code;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Pattern;

/**
 * Something that lies between client and gateway, and what it says.
 *
 * @param http statuses of an answer that is none of gRPC's; 0 is any other one
 * @param text part of the message, in small letters; "" fits none
 */
record PathCause(String name, List<Integer> http, String text, List<Code> codes, String says) {
  /** A cause, and the HTTP status that it came with, or "". */
  record Found(PathCause cause, String httpStatus) {
    Map<String, String> metadata() {
      return httpStatus.isEmpty()
          ? Map.of("path", cause.name)
          : Map.of("path", cause.name, "http_status", httpStatus);
    }
  }

  /** How grpc-java and the other libraries write the status of an HTTP answer. */
  private static final Pattern HTTP_STATUS =
      Pattern.compile("\\bstatus(?: code)?(?: received from server)?:? (\\d{3})\\b", Pattern.CASE_INSENSITIVE);

  /** What something on the way has done, where the gateway has said nothing. */
  static Optional<Found> find(Code code, String message) {
    var matcher = HTTP_STATUS.matcher(message);
    var status = matcher.find() ? matcher.group(1) : "";
    return PathCauses.ALL.stream()
        .filter(cause -> status.isEmpty() ? cause.fits(code, message) : cause.fits(Integer.parseInt(status)))
        .findFirst()
        .map(cause -> new Found(cause, status));
  }

  private boolean fits(int status) {
    return http.contains(status) || http.contains(0);
  }

  private boolean fits(Code code, String message) {
    return codes.contains(code) || (!text.isEmpty() && message.toLowerCase(Locale.ROOT).contains(text));
  }
}
