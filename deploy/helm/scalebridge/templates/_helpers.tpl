{{- define "scalebridge.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The names of jobs in Prometheus are those of these labels, whatever the release is called. */}}
{{- define "scalebridge.selector" -}}
app.kubernetes.io/name: scalebridge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scalebridge.scaler.selector" -}}
app.kubernetes.io/name: scalebridge-scaler
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scalebridge.commonLabels" -}}
app.kubernetes.io/part-of: scalebridge
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "scalebridge.labels" -}}
{{ include "scalebridge.selector" . }}
{{ include "scalebridge.commonLabels" . }}
{{- end -}}

{{- define "scalebridge.scaler.labels" -}}
{{ include "scalebridge.scaler.selector" . }}
{{ include "scalebridge.commonLabels" . }}
{{- end -}}

{{- define "scalebridge.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "scalebridge.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "scalebridge.scaler.serviceAccountName" -}}
{{- $account := .Values.scaler.serviceAccount -}}
{{- $own := printf "%s-scaler" (include "scalebridge.fullname" .) -}}
{{- $account.name | default (ternary $own "default" $account.create) -}}
{{- end -}}

{{/* image: dict "image" VALUES "version" VERSION */}}
{{- define "scalebridge.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end -}}
{{- end -}}

{{- define "scalebridge.isPostgres" -}}
{{- if eq .Values.store.engine "postgres" }}true{{ end -}}
{{- end -}}

{{/* The replicas. Two bridges must never share a file of SQLite: both would act. */}}
{{- define "scalebridge.replicas" -}}
{{- $replicas := .Values.replicas -}}
{{- if kindIs "invalid" $replicas -}}
{{- ternary 2 1 (eq .Values.store.engine "postgres") -}}
{{- else if and (gt (int $replicas) 1) (eq .Values.store.engine "sqlite") -}}
{{- fail (printf "replicas: %d needs a store that replicas share, and store.engine is sqlite. Set store.engine: postgres and store.postgres.secretName, or replicas: 1." (int $replicas)) -}}
{{- else -}}
{{- int $replicas -}}
{{- end -}}
{{- end -}}

{{/* A duration of Prometheus, such as 1m30s, in whole seconds, rounded up. */}}
{{- define "scalebridge.seconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 "w" 604800000 "y" 31536000000 -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+(ms|[smhdwy])" (toString .) -1 -}}
{{- $milliseconds = add $milliseconds (mul (regexFind "[0-9]+" . | int64) (get $units (regexFind "[a-z]+" .) | int64)) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{- define "scalebridge.preStopSeconds" -}}
{{- ternary (int .Values.preStopSeconds) 0 (eq .Values.store.engine "postgres") -}}
{{- end -}}

{{/* Kubernetes kills the bridge after this time, so it must be longer than the bridge needs to stop. */}}
{{- define "scalebridge.gracePeriod" -}}
{{- $drain := dig "server" "drain_timeout" "25s" .Values.config | toString -}}
{{- $least := add (include "scalebridge.seconds" $drain | int64) (include "scalebridge.preStopSeconds" . | int64) -}}
{{- $period := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $period -}}
{{- add $least 10 -}}
{{- else if le (int64 $period) $least -}}
{{- fail (printf "terminationGracePeriodSeconds: %d must be above config.server.drain_timeout (%s) and preStopSeconds together, %d s: Kubernetes would kill the bridge while it stops. Leave it out, or set it to %d or more." (int64 $period) $drain $least (add $least 1)) -}}
{{- else -}}
{{- int64 $period -}}
{{- end -}}
{{- end -}}

{{- define "scalebridge.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "scalebridge.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* The annotations of a service account: its values. Empty without any. */}}
{{- define "scalebridge.serviceAccountAnnotations" -}}
{{- $annotations := deepCopy .annotations -}}
{{- with .roleArn }}{{ $_ := set $annotations "eks.amazonaws.com/role-arn" . }}{{ end -}}
{{- with $annotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Refuses what must not be an environment variable. The ends `_FILE` and `_URI` name places, not secrets. */}}
{{- define "scalebridge.checkEnv" -}}
{{- range $name, $value := . -}}
{{- if regexMatch "://[^/@]*:[^/@]+@" (toString $value) }}{{ fail (printf "env.%s has a URL with a password, and values are no place for one: use a file of a Secret (`secrets`)." $name) }}{{ end -}}
{{- if and (regexMatch "(?i)(SECRET|PASSWORD|ACCESS_KEY|TOKEN)" $name) (not (regexMatch "_(FILE|URI|ENDPOINT)$" $name)) }}{{ fail (printf "env.%s looks like a secret, and values are no place for one: use a role (serviceAccount.roleArn, or EKS Pod Identity), or a file of a Secret (`secrets`)." $name) }}{{ end -}}
{{- if regexMatch "^SCALEBRIDGE_(CONFIG|URL|TOKEN_FILE|CA_FILE)$" $name }}{{ fail (printf "env.%s is set by the chart: remove it." $name) }}{{ end -}}
{{- if regexMatch "^SCALEBRIDGE__(SERVER|ADMIN|STORE)__" $name }}{{ fail (printf "env.%s would change what the chart derives from `config` and `store`: set it there." $name) }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* A rule of a NetworkPolicy: dict "peers" LIST "direction" "from"|"to" "ports" LIST. Without peers there is no rule: an
empty list of peers would mean all of them. */}}
{{- define "scalebridge.policyRule" -}}
{{- if .peers -}}
- {{ .direction }}:
    {{- toYaml .peers | nindent 4 }}
  ports:
    {{- toYaml .ports | nindent 4 }}
{{- end -}}
{{- end -}}
