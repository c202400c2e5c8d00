{{- define "responses-gateway.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "responses-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "responses-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "responses-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "responses-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "responses-gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* The configuration file, with what follows from the other values. */}}
{{- define "responses-gateway.config" -}}
{{- if not (has .Values.autoscaling.kind (list "hpa" "keda")) }}{{ fail (printf "autoscaling.kind: found %s; allowed: hpa, keda" .Values.autoscaling.kind) }}{{ end }}
{{- if not (has .Values.probes.readiness (list "http" "grpc")) }}{{ fail (printf "probes.readiness: found %s; allowed: http, grpc" .Values.probes.readiness) }}{{ end }}
{{- if not .Values.config.auth }}{{ fail "set config.auth: who may call (docs/configuration.md, auth)" }}{{ end }}
{{- $config := deepCopy .Values.config }}
{{- if .Values.tls.existingSecret }}
{{- $tls := dict "cert_file" "/tls/tls.crt" "key_file" "/tls/tls.key" }}
{{- if .Values.tls.mutual }}{{ $tls = set $tls "client_ca_file" "/tls/ca.crt" }}{{ end }}
{{- $config = set $config "tls" $tls }}
{{- end }}
{{- if .Values.cluster.enabled }}
{{- $config = set $config "cluster" (mergeOverwrite (include "responses-gateway.cluster" . | fromYaml) (default dict $config.cluster)) }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "responses-gateway.cluster" -}}
{{- with .Values.cluster }}
{{- if not .existingSecret }}{{ fail "set cluster.existingSecret: replicas know each other by its key `secret` (docs/scaling.md)" }}{{ end }}
url: {{ .url }}
listen: "0.0.0.0:{{ .peerPort }}"
secret_file: /cluster/secret
{{- if .password }}
password_file: /cluster/password
{{- end }}
{{- if .durable }}
store:
  {{- if .sealed }}
  keys: [{ id: session-key, key_file: /cluster/session-key }]
  {{- else }}
  keys: []
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "responses-gateway.port" -}}
{{- splitList ":" . | last }}
{{- end }}

{{/* Seconds of a duration of the configuration: 45s, 10m, 1h, 250ms. */}}
{{- define "responses-gateway.seconds" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- $unit := regexFind "[a-z]+$" $text }}
{{- $factor := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit }}
{{- if not $factor }}{{ fail (printf "%s: found no duration; allowed: a number with ms, s, m, h or d" $text) }}{{ end }}
{{- mulf $number $factor | ceil | int }}
{{- end }}

{{- define "responses-gateway.gracePeriod" -}}
{{- if .Values.terminationGracePeriodSeconds }}{{ .Values.terminationGracePeriodSeconds }}
{{- else }}
{{- $drain := default dict .Values.config.drain }}
{{- $delay := include "responses-gateway.seconds" (default "0s" $drain.delay) | int }}
{{- $timeout := include "responses-gateway.seconds" (default "30s" $drain.timeout) | int }}
{{- $scrape := include "responses-gateway.seconds" (default "15s" $drain.last_scrape) | int }}
{{- add $delay $timeout $scrape 10 }}
{{- end }}
{{- end }}

{{- define "responses-gateway.sessionsPerPod" -}}
{{- if .Values.autoscaling.sessionsPerPod }}{{ .Values.autoscaling.sessionsPerPod }}
{{- else }}
{{- $least := 1000 }}
{{- range .Values.config.tenants }}
{{- $own := int (dig "limits" "sessions" 1000 .) }}
{{- if and (gt $own 0) (lt $own $least) }}{{ $least = $own }}{{ end }}
{{- end }}
{{- max 1 (div (mul $least 4) 5) }}
{{- end }}
{{- end }}

{{/* Not empty: the gateway speaks TLS. */}}
{{- define "responses-gateway.tls" -}}
{{- if or .Values.tls.existingSecret .Values.config.tls }}yes{{ end }}
{{- end }}

{{/* Up at once, down one pod in two minutes: sessions end with their pod, or have to move. */}}
{{- define "responses-gateway.scaling" -}}
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownStabilizationSeconds | default (ternary 60 900 (and .Values.cluster.enabled .Values.cluster.durable)) }}
  policies: [{ type: Pods, value: 1, periodSeconds: 120 }]
{{- end }}
