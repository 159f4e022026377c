{{- /* Only a part of a name: it begins with `a-`, see webhook-configuration.yaml. */}}
{{- define "pgentra-operator.webhookConfiguration" -}}
a-{{ include "pgentra.fullname" . }}
{{- end }}

{{- define "pgentra-operator.webhookSecret" -}}
{{ include "pgentra.fullname" . }}-webhook
{{- end }}

{{- define "pgentra-operator.webhookArguments" -}}
{{- $sidecar := dict "image" (printf "%s:%s" .Values.injection.image.repository (default .Chart.AppVersion .Values.injection.image.tag)) }}
{{- $_ := set $sidecar "imagePullPolicy" .Values.injection.image.pullPolicy }}
{{- range $key, $from := dict "resources" "resources" "env" "extraEnv" "volumes" "extraVolumes" "volumeMounts" "extraVolumeMounts" "hostAliases" "hostAliases" }}
{{- with get $.Values.injection $from }}{{ $_ := set $sidecar $key . }}{{ end }}
{{- end }}
- --webhook-listen=0.0.0.0:9443
- --webhook-service={{ include "pgentra.fullname" . }}
- --webhook-secret={{ include "pgentra-operator.webhookSecret" . }}
- --webhook-configuration={{ include "pgentra-operator.webhookConfiguration" . }}
- --webhook-certificate-lifetime={{ int .Values.injection.certificateLifetime }}
- {{ printf "--sidecar=%s" (toJson $sidecar | replace "$" "$$") | quote }}
{{- end }}

{{- /* The Service of the replicas, and the namespaces that are never asked about. */}}
{{- define "pgentra-operator.webhook" -}}
admissionReviewVersions: [v1]
sideEffects: None
timeoutSeconds: {{ .Values.injection.timeoutSeconds }}
matchPolicy: Equivalent
clientConfig:
  service:
    name: {{ include "pgentra.fullname" . }}
    namespace: {{ .Release.Namespace }}
    path: /inject
    port: 443
{{- end }}

{{- define "pgentra-operator.otherNamespaces" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: {{ append .Values.injection.excludedNamespaces .Release.Namespace | uniq | toJson }}
{{- end }}
