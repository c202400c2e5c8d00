#!/usr/bin/env bash
# Checks the Helm chart: helm's own lint, what it renders against the schemas of Kubernetes, and that against what the
# gateway wants. helm comes through the Go module proxy, the schemas from PyPI. (Dashboard, alerts and the compose file
# are checked by test/deploy.)
set -euo pipefail
cd "$(dirname "$0")/.."

for needed in go python3; do
  command -v "$needed" >/dev/null || { echo "SKIPPED: there is no $needed to get the tools with"; exit 0; }
done

tools=${RESPONSES_GATEWAY_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/responses-gateway/tools}
mkdir -p "$tools"
[ -x "$tools/helm" ] || GOBIN=$tools go install helm.sh/helm/v3/cmd/helm@v3.19.0
if [ ! -x "$tools/python/bin/kubernetes-validate" ]; then
  python3 -m venv "$tools/python"
  "$tools/python/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
fi

chart=deploy/helm/responses-gateway
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$tools/helm" lint --strict --values "$chart/ci/test-values.yaml" "$chart"
"$tools/helm" template gateway "$chart" --kube-version 1.34.0 --values "$chart/ci/test-values.yaml" >"$work/all.yaml"
"$tools/helm" template gateway "$chart" --kube-version 1.34.0 --set 'config.auth[0].kind=none' --set 'config.auth[0].force=true' >"$work/least.yaml"
if "$tools/helm" template gateway "$chart" --kube-version 1.34.0 >/dev/null 2>"$work/refused"; then
  echo 'the chart should refuse to be installed without config.auth'
  exit 1
fi
grep -q 'set config.auth' "$work/refused"
# --no-warn: custom resources (ServiceMonitor) have no schema there.
"$tools/python/bin/kubernetes-validate" --strict --no-warn "$work/all.yaml" "$work/least.yaml"
node scripts/check-manifests.ts "$work/all.yaml" "$work/least.yaml"
