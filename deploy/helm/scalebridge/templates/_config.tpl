{{/* What the chart decides must not be in `config` too. */}}
{{- define "scalebridge.checkConfig" -}}
{{- include "scalebridge.checkEnv" .Values.env -}}
{{- $config := .Values.config -}}
{{- range $key, $fix := dict "store" "set `store.engine` beside `config`" "rules" "set `rules` beside `config`, a map of files" "source_files" "set `sourceFiles` beside `config`, a map of files" -}}
{{- if hasKey $config $key }}{{ fail (printf "config.%s is set by the chart: remove it, and %s." $key $fix) }}{{ end -}}
{{- end -}}
{{- range $listener := list "server" "admin" -}}
{{- $settings := get $config $listener | default dict -}}
{{- if hasKey $settings "listen" }}{{ fail (printf "config.%s.listen is set by the chart: remove it, and set `listenAddress`." $listener) }}{{ end -}}
{{- if and $.Values.tls.secretName (or (hasKey $settings "web_config_file") (dig "tls" "cert_file" "" $settings) (dig "tls" "key_file" "" $settings)) }}{{ fail (printf "config.%s has a certificate of its own: remove it, or leave `tls.secretName` empty." $listener) }}{{ end -}}
{{- if has (dig "tls" "client_auth_type" "" $settings) (list "RequireAndVerifyClientCert" "RequireAnyClientCert") }}{{ fail (printf "config.%s.tls.client_auth_type: the kubelet's probes have no certificate, so that the pod would be restarted for ever. Use VerifyClientCertIfGiven, and `auth.client_cert` of the sources." $listener) }}{{ end -}}
{{- end -}}
{{- $server := $config.server | default dict -}}
{{- $hasDefault := or (dig "auth" dict ($config.source_defaults | default dict)) (hasKey $server "web_config_file") $server.allow_unauthenticated -}}
{{- range $name, $source := $config.sources -}}
{{- if not (or $hasDefault (dig "auth" dict ($source | default dict))) }}{{ fail (printf "config.sources.%s has no `auth`: the bridge does not start, since anyone in the cluster could change capacity. Add `auth: { bearer_token_files: [/run/secrets/sources/%s] }` and the key %s to the Secret %s." $name $name $name ($.Values.secrets.sources | default "of `secrets.sources`")) }}{{ end -}}
{{- end -}}
{{- $admin := $config.admin | default dict -}}
{{- if not (or $admin.tokens $admin.users_file $admin.client_certs $admin.jwt $admin.web_config_file $admin.allow_unauthenticated) }}{{ fail "config.admin has no credentials: the bridge does not start, since anyone in the cluster could operate it. Add `tokens: [{ name: on-call, scope: operate, token_file: /run/secrets/admin/on-call }]`." }}{{ end -}}
{{- if not (or $config.sources .Values.sourceFiles) }}{{ fail "no source is configured: add one to config.sources or sourceFiles." }}{{ end -}}
{{- end -}}

{{- define "scalebridge.ruleFiles" -}}
{{- if not (or .Values.rules (dig "destinations" "journal" false .Values.config)) }}{{ fail "rules: the table of the chart sends to the destination journal, which config.destinations does not have, so the bridge would not start. Give a table that sends to yours: `sed 's/\\[journal\\]/[NAME]/' config/rules.yaml >rules.yaml`, then --set-file 'rules.rules\\.yaml=rules.yaml'." }}{{ end -}}
{{- $files := .Values.rules | default (dict "rules.yaml" (.Files.Get "files/rules.yaml")) -}}
{{- toJson $files -}}
{{- end -}}

{{/* The configuration as a map, in JSON. */}}
{{- define "scalebridge.config" -}}
{{- include "scalebridge.checkConfig" . -}}
{{- $config := deepCopy .Values.config -}}
{{- $server := $config.server | default dict -}}
{{- $admin := $config.admin | default dict -}}
{{- $_ := set $server "listen" (printf "%s:9096" .Values.listenAddress) -}}
{{- $_ := set $admin "listen" (printf "%s:9097" .Values.listenAddress) -}}
{{- if .Values.tls.secretName -}}
{{- $files := dict "cert_file" "/run/secrets/tls/tls.crt" "key_file" "/run/secrets/tls/tls.key" -}}
{{- $_ := set $server "tls" (merge (dict) $files ($server.tls | default dict)) -}}
{{- $_ := set $admin "tls" (merge (dict) $files ($admin.tls | default dict)) -}}
{{- end -}}
{{- $_ := set $config "server" $server -}}
{{- $_ := set $config "admin" $admin -}}
{{- $store := dict -}}
{{- if include "scalebridge.isPostgres" . -}}
{{- $postgres := .Values.store.postgres -}}
{{- $_ := set $store "postgres" (dict "url_file" (printf "/run/secrets/database/%s" $postgres.urlKey) "max_connections" (int $postgres.maxConnections) "iam" $postgres.iam "notify" $postgres.notify) -}}
{{- else -}}
{{- $_ := set $store "sqlite" (dict "path" "/var/lib/scalebridge/scalebridge.db") -}}
{{- end -}}
{{- $_ := set $config "store" $store -}}
{{- $_ := set $config "rules" (include "scalebridge.ruleFiles" . | fromJson | keys | sortAlpha) -}}
{{- if .Values.sourceFiles }}{{ $_ := set $config "source_files" (list "source-*.yaml") }}{{ end -}}
{{- toJson $config -}}
{{- end -}}

{{/* A hash of what the bridge does not reload. */}}
{{- define "scalebridge.restart" -}}
{{- $config := include "scalebridge.config" . | fromJson -}}
{{- $admin := omit $config.admin "tokens" "users_file" "users" "client_certs" "jwt" "metrics_unauthenticated" "external_url" -}}
{{- dict "server" $config.server "admin" $admin "store" $config.store "log" $config.log | toJson | sha256sum | trunc 16 -}}
{{- end -}}

{{/* The text of a file that is given as text or as YAML. */}}
{{- define "scalebridge.fileText" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toYaml . }}{{ end -}}
{{- end -}}
