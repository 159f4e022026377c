{{- /*
What the charts of the proxy, of the gateway and of the operator have in common. The other charts have links to files of this
folder. Each chart defines, below its own name: `config`, the configuration file, which the operator does not have; `ports`, the
ports of clients; `secrets`, the volumes of secrets, each a `name`, a `secretName` and, to mount some keys only, `keys`.
*/}}
{{- define "pgentra.command" -}}
{{- if hasKey .Values "targets" }}proxy
{{- else if hasKey .Values "servers" }}gateway
{{- else }}operator
{{- end }}
{{- end }}

{{- /* What a chart defines below its own name. */}}
{{- define "pgentra.own" -}}
{{- include (printf "pgentra-%s.%s" (include "pgentra.command" .root) .name) .root }}
{{- end }}

{{- define "pgentra.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pgentra.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgentra.labels" -}}
{{ include "pgentra.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "pgentra.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "pgentra.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /*
Helm reads each number of a values file as a float, and toToml writes a whole one as `30.0`. This puts whole numbers back, in a
copy that it is given.
*/}}
{{- define "pgentra.wholeNumbers" -}}
{{- range $key, $value := . }}
{{- if kindIs "float64" $value }}
{{- if eq $value (floor $value) }}{{- $_ := set $ $key (int64 $value) }}{{- end }}
{{- else if kindIs "map" $value }}
{{- include "pgentra.wholeNumbers" $value }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pgentra.probes" -}}
startupProbe:
  {{- if eq .command "proxy" }}
  # It ends when the proxy is ready. A probe by HTTP is repeated once a second, and the first comes too early.
  exec:
    command: [/usr/bin/pgentra, proxy, wait, --health=127.0.0.1:9432, --timeout=60s]
  timeoutSeconds: 65
  failureThreshold: 1
  {{- else }}
  httpGet:
    path: /startup
    port: {{ .port }}
  failureThreshold: 60
  {{- end }}
  periodSeconds: 1
readinessProbe:
  httpGet:
    path: /readiness
    port: {{ .port }}
livenessProbe:
  httpGet:
    path: /liveness
    port: {{ .port }}
{{- end }}

{{- define "pgentra.locked" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Labels of a pod that signs in. */}}
{{- define "pgentra.identityLabels" -}}
{{- if .Values.workloadIdentity.enabled }}
azure.workload.identity/use: "true"
{{- end }}
{{- with omit .Values.podLabels "azure.workload.identity/use" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What a pod of a program and the pod of `helm test` share, but for the containers. */}}
{{- define "pgentra.pod" -}}
serviceAccountName: {{ include "pgentra.serviceAccount" . }}
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
{{- with include "pgentra.volumes" . | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pgentra.volumes" -}}
{{- if ne (include "pgentra.command" .) "operator" }}
- name: config
  configMap:
    name: {{ include "pgentra.fullname" . }}
{{- end }}
{{- range include "pgentra.own" (dict "root" . "name" "secrets") | fromYamlArray }}
- name: {{ .name }}
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
    {{- with .keys }}
    items:
      {{- range . }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
    {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pgentra.volumeMounts" -}}
{{- if ne (include "pgentra.command" .) "operator" }}
- name: config
  mountPath: /etc/pgentra/config
  readOnly: true
{{- end }}
{{- range include "pgentra.own" (dict "root" . "name" "secrets") | fromYamlArray }}
- name: {{ .name }}
  mountPath: /etc/pgentra/{{ .name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What their containers share. */}}
{{- define "pgentra.container" -}}
image: "{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "pgentra.locked" . | nindent 2 }}
{{- with include "pgentra.volumeMounts" . | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
