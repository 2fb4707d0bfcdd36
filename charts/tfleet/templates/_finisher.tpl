{{- define "tfleet.fixed.finisher" -}}
{{- end }}
