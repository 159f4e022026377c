{{- /* Ports of the pods beside that of the probes. */}}
{{- define "pgentra-operator.ports" -}}
[]
{{- end }}

{{- define "pgentra-operator.secrets" -}}
[]
{{- end }}

{{- /* The command line. */}}
{{- define "pgentra-operator.arguments" -}}
- run
- --log-format=json
{{- end }}
