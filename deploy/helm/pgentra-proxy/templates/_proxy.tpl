{{- /* The configuration file. Everything but a target's `port` and `server` goes in as it is. */}}
{{- define "pgentra-proxy.config" -}}
{{- if not .Values.targets }}{{ fail "targets is empty: name a server" }}{{ end }}
{{- $targets := list }}
{{- range .Values.targets }}
{{- $target := omit (deepCopy .) "port" }}
{{- include "pgentra.wholeNumbers" $target }}
{{- $_ := set $target "listen" (printf "0.0.0.0:%d" (int (default 5432 .port))) }}
{{- $_ := set $target "listen_tls_cert" "/etc/pgentra/tls/tls.crt" }}
{{- $_ := set $target "listen_tls_key" "/etc/pgentra/tls/tls.key" }}
{{- with $.Values.tls.clientCa }}{{- $_ := set $target "listen_tls_client_ca" (printf "/etc/pgentra/tls/%s" .) }}{{- end }}
{{- if $.Values.auth.secretName }}{{- $_ := set $target "listen_auth_file" "/etc/pgentra/auth/users.txt" }}{{- end }}
{{- $targets = append $targets $target }}
{{- end }}
{{- $config := deepCopy .Values.config }}
{{- include "pgentra.wholeNumbers" $config }}
{{- toToml (merge (dict "target" $targets) $config) }}
{{- end }}

{{- define "pgentra-proxy.ports" -}}
{{- range $at, $target := .Values.targets }}
- {name: postgresql-{{ $at }}, port: {{ default 5432 $target.port }}}
{{- end }}
{{- end }}

{{- define "pgentra-proxy.secrets" -}}
- {name: tls, secretName: {{ .Values.tls.secretName }}}
{{- with .Values.auth.secretName }}
- {name: auth, secretName: {{ . }}}
{{- end }}
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
  {{- include "pgentra.probes" (dict "port" "pgentra-health" "command" "proxy") | nindent 2 }}
  resources:
    {{- default (dict "requests" (dict "cpu" "50m" "memory" "32Mi") "limits" (dict "memory" "256Mi")) .resources | toYaml | nindent 4 }}
  securityContext:
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
    {{- include "pgentra.locked" . | nindent 4 }}
{{- end }}
