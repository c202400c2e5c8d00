package dev.responsesgateway.client;

import java.util.regex.Pattern;

/** What grpc-java connects to, and whether the connection is plain. */
record Address(String target, boolean plain) {
  private static final Pattern SCHEME = Pattern.compile("(https?)://([^/]+)/?");
  private static final Pattern HOST = Pattern.compile("(?:\\[([^\\]]+)\\]|([^:]+)):\\d+");

  static Address of(String address) {
    var scheme = SCHEME.matcher(address);
    if (scheme.matches()) {
      return new Address(scheme.group(2), scheme.group(1).equals("http"));
    }
    if (address.startsWith("unix:")) {
      return new Address(address, true);
    }
    var host = HOST.matcher(address);
    var name = !host.matches() ? "" : host.group(1) != null ? host.group(1) : host.group(2);
    return new Address(address, name.equals("localhost") || name.equals("::1") || name.startsWith("127."));
  }
}
