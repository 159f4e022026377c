{{- /* The configuration file. Everything but the files and the port goes in as it is. */}}
{{- define "pgentra-gateway.config" -}}
{{- if not .Values.servers }}{{ fail "servers is empty: name a server" }}{{ end }}
{{- $servers := list }}
{{- range .Values.servers }}
{{- $server := deepCopy . }}
{{- include "pgentra.wholeNumbers" $server }}
{{- $servers = append $servers $server }}
{{- end }}
{{- $config := deepCopy .Values.config }}
{{- include "pgentra.wholeNumbers" $config }}
{{- $_ := set $config "listen" (printf "0.0.0.0:%d" (int .Values.port)) }}
{{- $_ := set $config "listen_tls_cert" "/etc/pgentra/tls/tls.crt" }}
{{- $_ := set $config "listen_tls_key" "/etc/pgentra/tls/tls.key" }}
{{- $_ := set $config "upstream_ca" (printf "/etc/pgentra/upstream-ca/%s" .Values.upstreamCa.key) }}
{{- if .Values.authority.secretName }}{{- $_ := set $config "authority" "/etc/pgentra/authority/authority.pem" }}{{- end }}
{{- if .Values.password.secretName }}{{- $_ := set $config "password_file" "/etc/pgentra/password/password" }}{{- end }}
{{- if .Values.mapping }}
{{- $_ := set $config "flavour" "none" }}
{{- $_ := set $config "mapping" "/etc/pgentra/config/mapping.toml" }}
{{- end }}
{{- toToml (merge (dict "server" $servers) $config) }}
{{- end }}

{{- define "pgentra-gateway.ports" -}}
- {name: postgresql, port: {{ .Values.port }}}
{{- end }}

{{- /* Keys are named where a secret has a private key that the gateway must not have. */}}
{{- define "pgentra-gateway.secrets" -}}
- {name: tls, secretName: {{ .Values.tls.secretName }}}
- {name: upstream-ca, secretName: {{ .Values.upstreamCa.secretName }}, keys: [{{ .Values.upstreamCa.key }}]}
{{- with .Values.authority.secretName }}
- {name: authority, secretName: {{ . }}, keys: [authority.pem]}
{{- end }}
{{- with .Values.password.secretName }}
- {name: password, secretName: {{ . }}, keys: [password]}
{{- end }}
{{- end }}
