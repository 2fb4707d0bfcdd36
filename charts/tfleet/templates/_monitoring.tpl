{{/* Objects for Prometheus and Grafana. */}}

{{/* metadata of such an object, with the user's labels: (dict "root" $ "suffix" "-dashboard" "labels" dict). */}}
{{- define "tfleet.monitoring.metadata" -}}
name: {{ printf "%s%s" (include "tfleet.fullname" .root) (.suffix | default "") | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- toYaml (merge (include "tfleet.labels" (dict "root" .root) | fromYaml) (.labels | default dict)) | nindent 2 }}
{{- end }}

{{/* Whether commits are made while the job trains, so that the last one has an age that means something. */}}
{{- define "tfleet.monitoring.commits" -}}
{{- $commits := dig "checkpoint" dict (.Values.job | default dict) -}}
{{- if or (dig "every_seconds" 60 $commits | float64) (dig "every_steps" 0 $commits | int) }}yes{{ end -}}
{{- end }}

{{/*
The alerts of one release. A pod of ps 0 that comes back is another target, hence the maximum over what there is; what
is over is not asked for any more, and its series end.
*/}}
{{- define "tfleet.monitoring.rules" -}}
{{- $values := .Values.monitoring.prometheusRule -}}
{{- $of := printf "namespace=%q, job=%q" .Release.Namespace .Release.Name -}}
{{- $training := printf "max by (namespace, job) (tfleet_phase{%s, phase=\"training\"}) == 1" $of -}}
{{- $where := "{{ $labels.namespace }}/{{ $labels.job }}" }}
- alert: TfleetNoProgress
  expr: |-
    max by (namespace, job) (changes(tfleet_step{{ "{" }}{{ $of }}{{ "}" }}[5m])) == 0
    and on (namespace, job) {{ $training }}
  for: {{ int $values.noProgressMinutes }}m
  labels:
    severity: critical
  annotations:
    summary: {{ printf "The job %s trains, but makes no steps" $where | quote }}
    description: {{ printf "No step for %d minutes. tfleet status tells which replicas are missing and what the workers wait for." (int $values.noProgressMinutes) | quote }}
- alert: TfleetUnreachable
  expr: |-
    max by (namespace, job) (up{{ "{" }}{{ $of }}{{ "}" }}) == 0
  for: {{ int $values.noProgressMinutes }}m
  labels:
    severity: critical
  annotations:
    summary: {{ printf "ps 0 of the job %s does not answer" $where | quote }}
    description: "Its pod is there, its status port is not: the log of ps 0 tells why; a NetworkPolicy may keep Prometheus out (networkPolicy.statusFrom)."
- alert: TfleetDroppedPushes
  expr: |-
    sum by (namespace, job) (increase(tfleet_pushes_refused_total{{ "{" }}{{ $of }}{{ "}" }}[15m])) > {{ int $values.droppedPushes }}
  labels:
    severity: warning
  annotations:
    summary: {{ printf "Pushes of the job %s are dropped" $where | quote }}
    description: {{ printf "More than %d in 15 minutes came twice or too late, and were not applied. Each costs the work of one batch: workers may be cut off and come back, or be too slow for job.peer_timeout." (int $values.droppedPushes) | quote }}
- alert: TfleetRestarts
  expr: |-
    sum by (namespace, job) (increase(tfleet_restarts_total{{ "{" }}{{ $of }}{{ "}" }}[15m])) > {{ int $values.restarts }}
  labels:
    severity: warning
  annotations:
    summary: {{ printf "Replicas of the job %s die and are started again" $where | quote }}
    description: {{ printf "More than %d restarts in 15 minutes. tfleet logs tells why each died; a replica has job.restarts of them." (int $values.restarts) | quote }}
{{- if include "tfleet.monitoring.commits" . }}
- alert: TfleetCommitTooOld
  expr: |-
    time() - max by (namespace, job) (tfleet_last_commit_time_seconds{{ "{" }}{{ $of }}{{ "}" }}) > {{ mul 60 (int $values.commitAgeMinutes) }}
    and on (namespace, job) {{ $training }}
  labels:
    severity: warning
  annotations:
    summary: {{ printf "The last commit of the job %s is too old" $where | quote }}
    description: {{ printf "Older than %d minutes: what is trained since would be lost with a ps. A full volume is the usual reason; the notes in tfleet status tell it." (int $values.commitAgeMinutes) | quote }}
{{- end }}
{{- end }}
