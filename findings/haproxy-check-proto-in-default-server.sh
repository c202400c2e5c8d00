#!/usr/bin/env bash
# HAProxy takes "check-proto h1" from a server line, but not from default-server. A backend of gRPC servers (proto h2) whose
# health is asked for on an HTTP/1 port is then down for good, with "Socket error", although the configuration is valid and
# the port answers: the check speaks HTTP/2.
#
# Version: Debian's haproxy 2.6.12. Fails when HAProxy does something else. Needs apt-get (download only) and python3.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
if command -v haproxy >/dev/null; then
  haproxy=$(command -v haproxy)
else
  apt-get download haproxy >/dev/null
  dpkg -x haproxy_*.deb .
  haproxy=./usr/sbin/haproxy
fi
"$haproxy" -v | sed -n 1p

python3 - >port <<'PY' &
import http.server, sys

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Health)
print(server.server_port, flush=True)
server.serve_forever()
PY
server=$!
until [ -s port ]; do sleep 0.1; done

# What HAProxy says of its first check. Arguments: options of default-server, options of the server.
first_check() {
  cat >haproxy.cfg <<CFG
defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 1s
  log stderr format raw local0
listen gateways
  bind unix@listener.sock
  option httpchk GET /
  option log-health-checks
  default-server inter 500ms $1
  server one 127.0.0.1:$(cat port) check proto h2 $2
CFG
  "$haproxy" -c -f haproxy.cfg >/dev/null
  timeout 3 "$haproxy" -db -f haproxy.cfg >log 2>&1 || true
  # It tells each twice: to its log, and as a warning.
  grep -o 'succeeded\|failed, reason: [A-Za-z ]*' log | sed -n 1p
}

on_line=$(first_check '' 'check-proto h1')
in_default=$(first_check 'check-proto h1' '')
echo "check-proto h1 on the server line:  $on_line"
echo "check-proto h1 in default-server:   $in_default"
[ "$on_line" = succeeded ] && [ "$in_default" = 'failed, reason: Socket error' ]
