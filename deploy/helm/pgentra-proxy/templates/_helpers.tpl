{{- define "pgentra-proxy.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pgentra-proxy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgentra-proxy.labels" -}}
{{ include "pgentra-proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "pgentra-proxy.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "pgentra-proxy.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /*
Helm reads each number of a values file as a float, and toToml writes a whole one as `30.0`. This puts whole numbers back, in a
copy that it is given.
*/}}
{{- define "pgentra-proxy.wholeNumbers" -}}
{{- range $key, $value := . }}
{{- if kindIs "float64" $value }}
{{- if eq $value (floor $value) }}{{- $_ := set $ $key (int64 $value) }}{{- end }}
{{- else if kindIs "map" $value }}
{{- include "pgentra-proxy.wholeNumbers" $value }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The configuration file. Everything but a target's `port` and `server` goes in as it is. */}}
{{- define "pgentra-proxy.config" -}}
{{- $targets := list }}
{{- range .Values.targets }}
{{- $target := omit (deepCopy .) "port" }}
{{- include "pgentra-proxy.wholeNumbers" $target }}
{{- $_ := set $target "listen" (printf "0.0.0.0:%d" (int (default 5432 .port))) }}
{{- $_ := set $target "listen_tls_cert" "/etc/pgentra/tls/tls.crt" }}
{{- $_ := set $target "listen_tls_key" "/etc/pgentra/tls/tls.key" }}
{{- with $.Values.tls.clientCa }}{{- $_ := set $target "listen_tls_client_ca" (printf "/etc/pgentra/tls/%s" .) }}{{- end }}
{{- if $.Values.auth.secretName }}{{- $_ := set $target "listen_auth_file" "/etc/pgentra/auth/users.txt" }}{{- end }}
{{- $targets = append $targets $target }}
{{- end }}
{{- $config := deepCopy .Values.config }}
{{- include "pgentra-proxy.wholeNumbers" $config }}
{{- toToml (merge (dict "target" $targets) $config) }}
{{- end }}

{{- /*
A native sidecar for a chart of yours that depends on this one. In the pod's spec:

  initContainers:
    {{- include "pgentra-proxy.sidecar" (dict "image" "pgentra:0.1.0" "server" "postgresql://…/") | nindent 4 }}

`port` is where the application connects on 127.0.0.1 (5432), `args` are more arguments of `pgentra proxy`.
*/}}
{{- define "pgentra-proxy.sidecar" -}}
- name: pgentra
  image: {{ required "image is needed" .image | quote }}
  restartPolicy: Always
  args:
    - proxy
    - --listen=127.0.0.1:{{ default 5432 .port }}
    - --health-listen=0.0.0.0:9432
    - --log-format=json
    {{- range .args }}
    - {{ . | quote }}
    {{- end }}
    - {{ required "server is needed" .server | quote }}
  ports:
    - name: pgentra-health
      containerPort: 9432
  {{- include "pgentra-proxy.probes" "pgentra-health" | nindent 2 }}
  resources:
    {{- default (dict "requests" (dict "cpu" "50m" "memory" "32Mi") "limits" (dict "memory" "256Mi")) .resources | toYaml | nindent 4 }}
  securityContext:
    runAsUser: 65532
    runAsGroup: 65532
    {{- include "pgentra-proxy.locked" . | nindent 4 }}
{{- end }}

{{- define "pgentra-proxy.probes" -}}
startupProbe:
  httpGet:
    path: /startup
    port: {{ . }}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet:
    path: /readiness
    port: {{ . }}
livenessProbe:
  httpGet:
    path: /liveness
    port: {{ . }}
{{- end }}

{{- define "pgentra-proxy.locked" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Labels of a pod that signs in. */}}
{{- define "pgentra-proxy.identityLabels" -}}
{{- if .Values.workloadIdentity.enabled }}
azure.workload.identity/use: "true"
{{- end }}
{{- with omit .Values.podLabels "azure.workload.identity/use" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What a pod of the proxy and the pod of `helm test` share, but for the containers. */}}
{{- define "pgentra-proxy.pod" -}}
serviceAccountName: {{ include "pgentra-proxy.serviceAccount" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "pgentra-proxy.fullname" . }}
  - name: tls
    secret:
      secretName: {{ .Values.tls.secretName }}
      defaultMode: 0440
  {{- with .Values.auth.secretName }}
  - name: auth
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* What their containers share. */}}
{{- define "pgentra-proxy.container" -}}
image: "{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "pgentra-proxy.locked" . | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/pgentra/config
    readOnly: true
  - name: tls
    mountPath: /etc/pgentra/tls
    readOnly: true
  {{- if .Values.auth.secretName }}
  - name: auth
    mountPath: /etc/pgentra/auth
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
