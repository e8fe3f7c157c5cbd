{{- define "scalebridge.scaler.check" -}}
{{- include "scalebridge.checkEnv" .Values.scaler.env -}}
{{- $config := .Values.scaler.config -}}
{{- range list "queue" "ledger" "targets" -}}
{{- if not (get $config .) }}{{ fail (printf "scaler.config.%s is missing: the worker needs `queue: { queue_url: … }`, `ledger: { dynamodb: { table: … } }` and `targets: [{ match: … }]`." .) }}{{ end -}}
{{- end -}}
{{- if not (dig "ledger" "dynamodb" dict $config) }}{{ fail "scaler.config.ledger must be in DynamoDB: a file does not outlive the pod, and without it events act twice. Set `ledger: { dynamodb: { table: scalebridge-scaler, region: … } }`." }}{{ end -}}
{{- $rbac := .Values.scaler.rbac -}}
{{- if and $rbac.create $rbac.rules (not (or $rbac.namespaces $rbac.clusterWide)) }}{{ fail "scaler.rbac.rules hold nowhere: set scaler.rbac.namespaces, or clusterWide: true." }}{{ end -}}
{{- end -}}

{{/* Whether the worker changes workloads of its own cluster: only then it has a token for its API. */}}
{{- define "scalebridge.scaler.isInCluster" -}}
{{- range $name, $cluster := .Values.scaler.config.clusters }}{{ if $cluster.in_cluster }}true{{ end }}{{ end -}}
{{- end -}}
