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
{{- if not .Values.config.auth }}{{ fail "set config.auth: who may call (docs/configuration.md, auth)" }}{{ end }}
{{- $config := deepCopy .Values.config }}
{{- if .Values.tls.existingSecret }}
{{- $tls := dict "cert_file" "/tls/tls.crt" "key_file" "/tls/tls.key" }}
{{- if .Values.tls.mutual }}{{ $tls = set $tls "client_ca_file" "/tls/ca.crt" }}{{ end }}
{{- $config = set $config "tls" $tls }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- define "responses-gateway.port" -}}
{{- splitList ":" . | last }}
{{- end }}
