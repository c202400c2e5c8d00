#!/bin/sh
# Builds what the clients are installed from: scripts/client-packages.sh [FOLDER [LANGUAGE…]]
# FOLDER (dist/clients by default) gets a wheel, a tgz, a Maven repository (maven/) and a Go module proxy (goproxy/).
set -eu
cd "$(dirname "$0")/.."
mkdir -p "${1:-dist/clients}"
out=$(cd "${1:-dist/clients}" && pwd)
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- python typescript java go
for language in "$@"; do
  case $language in
    python)
      python=$(node -e "import('./scripts/client-tools.ts').then(({ python }) => console.log(python()))")
      "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$out" ./clients/python
      rm -rf clients/python/build clients/python/src/*.egg-info
      ;;
    typescript) (cd clients/typescript && npm pack --silent --pack-destination "$out" >/dev/null) ;;
    java)
      mvn -B -ntp -q -f clients/java -DskipTests deploy "-DaltDeploymentRepository=packages::file://$out/maven"
      ;;
    go)
      # What `go get` loads, of the files as they are: GOPROXY=file://…/goproxy.
      module=github.com/responses-gateway/responses-gateway/clients/go
      version=v$(node -p "require('./package.json').version")
      folder=$out/goproxy/$module/@v
      mkdir -p "$folder"
      printf '{"Version":"%s"}' "$version" >"$folder/$version.info"
      cp clients/go/go.mod "$folder/$version.mod"
      rm -f "$folder/$version.zip"
      python3 - clients/go "$module@$version" "$folder/$version.zip" <<'PY'
import os
import sys
import zipfile

source, prefix, target = sys.argv[1:]
with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written:
    for folder, folders, files in os.walk(source):
        if folder != source and "go.mod" in files:
            folders.clear()  # Another module.
            continue
        for name in files:
            path = os.path.join(folder, name)
            written.write(path, os.path.join(prefix, os.path.relpath(path, source)))
PY
      ;;
    *)
      echo "found $language; allowed: python, typescript, java, go" >&2
      exit 2
      ;;
  esac
done
ls "$out"
