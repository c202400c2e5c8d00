#!/bin/sh
# Builds what the Python and TypeScript clients are installed from: scripts/client-packages.sh [FOLDER]
# FOLDER (dist/clients by default) gets a wheel and a tgz.
set -eu
cd "$(dirname "$0")/.."
mkdir -p "${1:-dist/clients}"
out=$(cd "${1:-dist/clients}" && pwd)
python=$(node -e "import('./scripts/client-tools.ts').then(({ python }) => console.log(python()))")
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$out" ./clients/python
(cd clients/typescript && npm pack --silent --pack-destination "$out" >/dev/null)
rm -rf clients/python/build clients/python/src/*.egg-info
ls "$out"
