#!/bin/sh
# Finds Prometheus and promtool, else installs Debian's. For `npm run test:alerts`.
set -e
command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get install -y --no-install-recommends prometheus ||
    { apt-get update && apt-get install -y --no-install-recommends prometheus; }; } >/dev/null
fi
command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
echo "test:alerts: found no prometheus and promtool; install both (Debian's package prometheus has them)" >&2
exit 1
