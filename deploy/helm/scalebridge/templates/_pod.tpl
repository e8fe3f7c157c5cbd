{{/* The pod of the bridge: the template of the StatefulSet and of the Deployment. */}}
{{- define "scalebridge.pod" -}}
{{- $scheme := ternary "HTTPS" "HTTP" (not (empty .Values.tls.secretName)) -}}
metadata:
  labels:
    {{- include "scalebridge.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    scalebridge.io/restart: {{ include "scalebridge.restart" . | quote }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "scalebridge.serviceAccountName" . }}
  # The bridge does not call the API of Kubernetes. The tokens of IRSA and Pod Identity are other volumes.
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "scalebridge.podSecurityContext" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "scalebridge.gracePeriod" . }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if include "scalebridge.isPostgres" . }}
  topologySpreadConstraints:
    {{- if kindIs "invalid" .Values.topologySpreadConstraints }}
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "scalebridge.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
    {{- else }}
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - name: scalebridge
      image: {{ include "scalebridge.image" (dict "image" .Values.image "version" .Chart.AppVersion) | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [/usr/local/bin/scalebridge]
      args: [serve, --config, /etc/scalebridge/scalebridge.yaml]
      env:
        # For `kubectl exec … -- scalebridge status` and the other commands of operators.
        - { name: SCALEBRIDGE_CONFIG, value: /etc/scalebridge/scalebridge.yaml }
        - { name: SCALEBRIDGE_URL, value: "{{ lower $scheme }}://localhost:9097" }
        {{- with .Values.cli.tokenFile }}
        - { name: SCALEBRIDGE_TOKEN_FILE, value: {{ . | quote }} }
        {{- end }}
        {{- if .Values.tls.secretName }}
        - { name: SCALEBRIDGE_CA_FILE, value: /run/secrets/tls/ca.crt }
        {{- end }}
        {{- range $name, $value := .Values.env }}
        - { name: {{ $name }}, value: {{ $value | quote }} }
        {{- end }}
      ports:
        - { name: webhook, containerPort: 9096, protocol: TCP }
        - { name: admin, containerPort: 9097, protocol: TCP }
      # Healthy also while the bridge opens its store; with postgres it waits three minutes for the database.
      startupProbe:
        httpGet: { path: /-/healthy, port: webhook, scheme: {{ $scheme }} }
        periodSeconds: 2
        failureThreshold: 150
        timeoutSeconds: 5
      livenessProbe:
        httpGet: { path: /-/healthy, port: webhook, scheme: {{ $scheme }} }
        periodSeconds: 10
        failureThreshold: 6
        timeoutSeconds: 5
      readinessProbe:
        httpGet: { path: /-/ready, port: webhook, scheme: {{ $scheme }} }
        periodSeconds: 5
        failureThreshold: 2
        timeoutSeconds: 5
      {{- if and (include "scalebridge.isPostgres" .) (gt (int .Values.preStopSeconds) 0) }}
      lifecycle:
        preStop: { sleep: { seconds: {{ int .Values.preStopSeconds }} } }
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "scalebridge.securityContext" . | nindent 8 }}
      volumeMounts:
        # Directories, not subPath: only these are updated.
        - { name: config, mountPath: /etc/scalebridge, readOnly: true }
        - { name: tmp, mountPath: /tmp }
        {{- if not (include "scalebridge.isPostgres" .) }}
        - { name: data, mountPath: /var/lib/scalebridge }
        {{- end }}
        {{- range $name, $secret := include "scalebridge.mounts" . | fromJson }}
        - { name: secret-{{ $name }}, mountPath: /run/secrets/{{ $name }}, readOnly: true }
        {{- end }}
  volumes:
    - name: config
      configMap: { name: {{ include "scalebridge.fullname" . }} }
    - name: tmp
      emptyDir: { sizeLimit: 64Mi }
    {{- range $name, $secret := include "scalebridge.mounts" . | fromJson }}
    - name: secret-{{ $name }}
      secret: { secretName: {{ $secret }}, defaultMode: 0440 }
    {{- end }}
{{- end -}}

{{/* Directories below /run/secrets, and their Secrets. */}}
{{- define "scalebridge.mounts" -}}
{{- $mounts := dict -}}
{{- range $name, $secret := .Values.secrets }}{{ if $secret }}{{ $_ := set $mounts $name $secret }}{{ end }}{{ end -}}
{{- if include "scalebridge.isPostgres" . }}{{ $_ := set $mounts "database" .Values.store.postgres.secretName }}{{ end -}}
{{- with .Values.tls.secretName }}{{ $_ := set $mounts "tls" . }}{{ end -}}
{{- toJson $mounts -}}
{{- end -}}
