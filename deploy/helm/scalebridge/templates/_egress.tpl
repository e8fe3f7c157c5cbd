{{/* The rules of egress of bridge and scaler: dict "root" $ "hasDatabase" BOOL */}}
{{- define "scalebridge.egress" -}}
{{- $egress := .root.Values.networkPolicy.egress -}}
{{- $ports := list (dict "port" 53 "protocol" "UDP") (dict "port" 53 "protocol" "TCP") -}}
{{ include "scalebridge.policyRule" (dict "direction" "to" "peers" $egress.dns "ports" $ports) }}
{{ include "scalebridge.policyRule" (dict "direction" "to" "peers" $egress.https "ports" (list (dict "port" 443 "protocol" "TCP"))) }}
{{- if $egress.podIdentity }}
{{- $agent := list (dict "ipBlock" (dict "cidr" "169.254.170.23/32")) (dict "ipBlock" (dict "cidr" "fd00:ec2::23/128")) }}
{{ include "scalebridge.policyRule" (dict "direction" "to" "peers" $agent "ports" (list (dict "port" 80 "protocol" "TCP"))) }}
{{- end }}
{{- if .hasDatabase }}
{{ include "scalebridge.policyRule" (dict "direction" "to" "peers" $egress.database.peers "ports" (list (dict "port" (int $egress.database.port) "protocol" "TCP"))) }}
{{- end }}
{{- with $egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}
