{{/* Names, labels, and values as text. */}}

{{- define "tfleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if .Values.nameOverride -}}
{{ .Release.Name }}-{{ .Values.nameOverride }}
{{- else -}}
{{ .Release.Name }}
{{- end -}}
{{- end }}

{{/* What tells the pods of one role from all others: (dict "root" $ "component" "ps"). */}}
{{- define "tfleet.selector" -}}
app.kubernetes.io/name: tfleet
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of objects. Never used in a pod template, which must not change with the chart's version. */}}
{{- define "tfleet.labels" -}}
app.kubernetes.io/name: tfleet
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* metadata of an object: (dict "root" $ "suffix" "-ps" "component" "ps"). */}}
{{- define "tfleet.metadata" -}}
name: {{ printf "%s%s" (include "tfleet.fullname" .root) (.suffix | default "") | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "tfleet.labels" . | nindent 2 }}
{{- end }}

{{- define "tfleet.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "tfleet.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "tfleet.tokenSecret" -}}
{{ .Values.token.existingSecret | default (printf "%s-token" (include "tfleet.fullname" .)) }}
{{- end }}

{{/* Image of a role: (dict "root" $ "image" .Values.ps.image). */}}
{{- define "tfleet.image" -}}
{{- $tag := include "tfleet.text" .image.tag | default .root.Chart.AppVersion -}}
{{ .image.repository }}{{ ternary "@" ":" (hasPrefix "sha256:" $tag) }}{{ $tag }}
{{- end }}

{{/* A value as text; the same whether it came from --set (an integer) or from a file (a float, which prints as 1e+06). */}}
{{- define "tfleet.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else if not (kindIs "invalid" .) }}{{ toJson . }}{{ end -}}
{{- end }}

{{/* A Kubernetes quantity as a number, such as 2147483648 for 2Gi; the schema has checked its form. */}}
{{- define "tfleet.quantity" -}}
{{- $text := include "tfleet.text" . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $bytes := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- mulf (float64 (trimSuffix $unit $text)) (get $bytes $unit) -}}
{{- end }}

{{/* (list base over): base with what is not empty in over put over it, mapping by mapping. sprig's merges take empty text for given. */}}
{{- define "tfleet.over" -}}
{{- $merged := deepCopy (first .) -}}
{{- range $key, $value := last . -}}
  {{- $below := get $merged $key -}}
  {{- if and $value $below (kindIs "map" $value) (kindIs "map" $below) -}}
    {{- $value = include "tfleet.over" (list $below $value) | fromYaml -}}
  {{- end -}}
  {{- if $value }}{{ $_ := set $merged $key $value }}{{ end -}}
{{- end -}}
{{ toYaml $merged }}
{{- end }}

{{/* "yes" when the pods run the user's own commands instead of tfleet's. */}}
{{- define "tfleet.ownCommand" -}}
{{- if or .Values.worker.command .Values.ps.command }}yes{{ end -}}
{{- end }}
