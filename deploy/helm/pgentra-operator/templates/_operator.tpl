{{- /* Ports of the pods beside that of the probes. */}}
{{- define "pgentra-operator.ports" -}}
{{- if .Values.injection.enabled }}
- {name: webhook, port: 9443}
{{- else }}
[]
{{- end }}
{{- end }}

{{- define "pgentra-operator.secrets" -}}
[]
{{- end }}

{{- /* The command line. */}}
{{- define "pgentra-operator.arguments" -}}
- run
- --log-format=json
{{- if .Values.injection.enabled }}
{{- include "pgentra-operator.webhookArguments" . }}
{{- end }}
{{- with .Values.roles }}
{{- if .enabled }}
{{- if not .servers }}{{ fail "roles.servers is empty: name the servers that resources may name" }}{{ end }}
- --roles
- --server={{ join "," .servers }}
{{- with .rootCertificates }}
- {{ printf "--root-certificates=%s" . | quote }}
{{- end }}
- --cloud={{ .cloud }}
- --concurrency={{ .concurrency }}
- --lease={{ include "pgentra.fullname" $ }}
{{- end }}
{{- end }}
{{- end }}
