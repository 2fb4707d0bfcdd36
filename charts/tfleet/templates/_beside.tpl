{{/* Deployment and Service of a program beside the job: (dict "root" $ "component" "serving" "number" 1 "replica" values "ports" (dict "http" 8501) "container" YAML). */}}
{{- define "tfleet.beside" -}}
{{- $meta := dict "root" .root "suffix" (printf "-%s" .component) "component" .component -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "tfleet.metadata" $meta | nindent 2 }}
spec:
  replicas: {{ .number }}
  selector:
    matchLabels:
      {{- include "tfleet.selector" $meta | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "tfleet.selector" $meta | nindent 8 }}
    spec:
      {{- include "tfleet.podSpec" (dict "root" .root "replica" .replica "container" .container "uses" (list "storage") "readOnly" true) | trim | nindent 6 }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "tfleet.metadata" $meta | nindent 2 }}
spec:
  type: {{ .replica.serviceType }}
  selector:
    {{- include "tfleet.selector" $meta | nindent 4 }}
  ports:
    {{- range $name, $port := .ports }}
    - name: {{ $name }}
      port: {{ $port }}
      targetPort: {{ $name }}
      protocol: TCP
    {{- end }}
{{- end }}
