#!/usr/bin/env bash
# Checks the Helm chart: helm's own lint, what it renders against the schemas of Kubernetes and of the custom resources, and
# that against what the gateway wants. helm and the custom resources' definitions come through the Go module proxy, the
# schemas of Kubernetes from PyPI. (Dashboard, alerts and the compose file are checked by test/deploy.)
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

# The definitions of the custom resources that the chart can render, as their projects publish them.
definitions() { # MODULE@VERSION FOLDER FILE...
  local source
  source=$(cd "$work" && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  (cd "$source/$2" && install -m 644 -D -t "$work/resources" "${@:3}")
}
definitions sigs.k8s.io/gateway-api@v1.6.3 config/crd/standard gateway.networking.k8s.io_grpcroutes.yaml
definitions github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd \
  monitoring.coreos.com_prometheusrules.yaml monitoring.coreos.com_servicemonitors.yaml
definitions github.com/kedacore/keda/v2@v2.21.0 config/crd/bases keda.sh_scaledobjects.yaml

# helm says on standard error that it follows links; that is of interest only when it fails.
quietly() { "$@" 2>"$work/stderr" || { cat "$work/stderr" >&2; return 1; }; }
render() { quietly "$tools/helm" template gateway "$chart" --kube-version 1.34.0 "$@"; }

rendered=()
for values in "$chart"/ci/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  quietly "$tools/helm" lint --strict --quiet --values "$values" "$chart"
  render --values "$values" >"$work/$name.yaml"
  rendered+=("$work/$name.yaml")
done
# What does not fit together is refused, in words.
refuses() {
  if render "${@:2}" >/dev/null 2>"$work/refused"; then
    echo "the chart should refuse: ${*:2}"
    exit 1
  fi
  grep -q "$1" "$work/refused" || { cat "$work/refused"; exit 1; }
}
refuses 'set config.auth'
refuses 'the kubelet speaks no TLS' --values "$chart/ci/tls-values.yaml" --set probes.readiness=grpc
refuses 'allowed: hpa, keda' --values "$chart/ci/replicas-values.yaml" --set autoscaling.kind=vpa
refuses 'set autoscaling.keda.prometheus' --values "$chart/ci/replicas-values.yaml" --set autoscaling.keda.prometheus=
"$tools/python/bin/python" scripts/validate-manifests.py --resources "$work/resources" "${rendered[@]}"
node scripts/check-manifests.ts "${rendered[@]}"
