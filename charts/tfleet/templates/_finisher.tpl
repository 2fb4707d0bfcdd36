{{/* The finisher's pod, the only one with a token of the API server. */}}
{{- define "tfleet.fixed.finisher" -}}
template:
  metadata:
    labels:
      {{- include "tfleet.selector" (dict "root" . "component" "finisher") | nindent 6 }}
  spec:
    {{- include "tfleet.podSpec" (dict
        "root" .
        "replica" (merge (dict "limit" (dict "memory" "128Mi") "request" (dict "cpu" "10m" "memory" "32Mi")) .Values.finisher)
        "restartPolicy" "OnFailure"
        "serviceAccount" (printf "%s-finisher" (include "tfleet.fullname" .))
        "apiToken" true
        "uses" list
        "container" (include "tfleet.finisherContainer" .)
      ) | trim | nindent 4 }}
{{- end }}

{{- define "tfleet.finisherContainer" -}}
{{- $name := include "tfleet.fullname" . -}}
command: [python, -m, tfleet.backends.finisher]
args:
  - --namespace
  - {{ .Release.Namespace | quote }}
  - --worker-job
  - "{{ $name }}-worker"
  - --ps-job
  - "{{ $name }}-ps"
env:
  {{- include "tfleet.commonEnv" list | trim | nindent 2 }}
{{- end }}
