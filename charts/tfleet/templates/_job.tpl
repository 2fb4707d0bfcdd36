{{/* The job file, and the Jobs of Kubernetes. */}}

{{- define "tfleet.statusPort" -}}
{{ dig "status_port" 8080 (.Values.job | default dict) | int }}
{{- end }}

{{/* The job file: `job` with what other values say of it. It holds nothing that JobSpec does not know. */}}
{{- define "tfleet.jobFile" -}}
{{- $job := deepCopy (.Values.job | default dict) -}}
{{- $old := .Values.hyperparams -}}
{{- with $old.batchsize }}{{ $_ := set $job "batch_size" (int .) }}{{ end -}}
{{- with float64 $old.learningrate }}{{ $_ := set $job "learning_rate" . }}{{ end -}}
{{- if ge (dig "trainsteps" -1 $old | int) 0 }}{{ $_ := set $job "steps" (int $old.trainsteps) }}{{ end -}}
{{- with $old.datadir }}{{ $_ := set $job "data_dir" . }}{{ end -}}
{{- with $old.hiddenunits }}{{ $_ := set $job "params" (merge (dict "hidden_units" (include "tfleet.text" .)) ($job.params | default dict)) }}{{ end -}}
{{- with float64 .Values.deadline }}{{ $_ := set $job "deadline" . }}{{ end -}}
{{- if and .Values.taskFile.name (not (include "tfleet.ownCommand" .)) -}}
  {{- $_ := set $job "task" (printf "/etc/tfleet/task/%s" $job.task) -}}
{{- end -}}
{{- $_ := set $job "workers" (int .Values.worker.number) -}}
{{- $_ := set $job "ps" (int .Values.ps.number) -}}
{{- $_ := set $job "status_port" (include "tfleet.statusPort" . | int) -}}
{{- if include "tfleet.tlsSecret" . -}}
  {{- range $field, $file := dict "tls_cert" "tls.crt" "tls_key" "tls.key" "tls_ca" "ca.crt" -}}
    {{- $_ := set $job $field (printf "/etc/tfleet/tls/%s" $file) -}}
  {{- end -}}
  {{- $_ := set $job "tls_server_name" (include "tfleet.tlsServerName" .) -}}
{{- end -}}
{{ toYaml $job }}
{{- end }}

{{/* What a Job cannot change once it is there. A ps is replaced at once also where its node is silent; exit codes do not matter. */}}
{{- define "tfleet.fixed.ps" -}}
completionMode: Indexed
podReplacementPolicy: TerminatingOrFailed
template:
  {{- include "tfleet.podTemplate" (dict "root" . "role" "ps" "restartPolicy" "OnFailure") | nindent 2 }}
{{- end }}

{{- define "tfleet.fixed.evaluator" -}}
completionMode: Indexed
podReplacementPolicy: TerminatingOrFailed
template:
  {{- include "tfleet.podTemplate" (dict "root" . "role" "evaluator" "restartPolicy" "OnFailure") | nindent 2 }}
{{- end }}

{{/* Code 2 is wrong input, 128 a command that could not start: no retry helps. 1 is tfleet's "the job is over and has failed". */}}
{{- define "tfleet.fixed.worker" -}}
{{- $own := include "tfleet.ownCommand" . -}}
completionMode: Indexed
backoffLimitPerIndex: {{ int .Values.backoff.workerPerIndex }}
maxFailedIndexes: 0
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes:
        containerName: main
        operator: In
        values: {{ ternary "[2, 128]" "[1, 2, 128]" (eq $own "yes") }}
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
{{- if not $own }}
# One worker told that the job is done says it for all: pods still in back-off are dropped.
successPolicy:
  rules:
    - succeededCount: 1
{{- else if .Values.worker.successIndex0 }}
successPolicy:
  rules:
    - succeededIndexes: "0"
{{- end }}
template:
  {{- include "tfleet.podTemplate" (dict "root" . "role" "worker" "restartPolicy" "Never") | nindent 2 }}
{{- end }}

{{/* Changes when something does that a running job cannot take; the number of workers is not in it. */}}
{{- define "tfleet.fingerprint" -}}
{{- $parts := list (include "tfleet.fixed.ps" .) (include "tfleet.fixed.worker" .) -}}
{{- if include "tfleet.hasEvaluator" . }}{{ $parts = append $parts (include "tfleet.fixed.evaluator" .) }}{{ end -}}
{{- $parts = append $parts (omit (include "tfleet.jobFile" . | fromYaml) "workers" | toJson) -}}
{{- join "\n" (concat $parts (list .Values.taskFile.content (int .Values.ps.number))) | sha256sum -}}
{{- end }}

{{- define "tfleet.hasEvaluator" -}}
{{- if dig "evaluation" "evaluator" false (.Values.job | default dict) }}yes{{ end -}}
{{- end }}

{{/*
A Job, unless an upgrade would train again: with a time to live an ended Job is gone, and stays so.
(dict "root" $ "suffix" "-ps" "component" "ps" "number" 2 "backoffLimit" 6 "fixed" YAML "fingerprint" text)
*/}}
{{- define "tfleet.job" -}}
{{- $values := .root.Values -}}
{{- $mortal := ge (int $values.ttlSecondsAfterFinished) 0 -}}
{{- $name := printf "%s%s" (include "tfleet.fullname" .root) .suffix -}}
{{- if or .root.Release.IsInstall (not $mortal) (lookup "batch/v1" "Job" .root.Release.Namespace $name) -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "tfleet.metadata" . | nindent 2 }}
  annotations:
    tfleet.dev/template: {{ .fingerprint | quote }}
    {{- if eq .component "ps" }}
    tfleet.dev/number: {{ .number | quote }}
    {{- end }}
spec:
  parallelism: {{ .number }}
  completions: {{ .number }}
  {{- with .backoffLimit }}
  backoffLimit: {{ . }}
  {{- end }}
  {{- with float64 $values.deadline }}
  # The coordinator ends the job at its deadline; this is for a coordinator that cannot.
  activeDeadlineSeconds: {{ add 120 (ceil .) }}
  {{- end }}
  {{- if $mortal }}
  ttlSecondsAfterFinished: {{ int $values.ttlSecondsAfterFinished }}
  {{- end }}
  {{- .fixed | nindent 2 }}
{{- end }}
{{- end }}
