{{/* Pods of the roles ps, worker and evaluator. Nothing in them may change with worker.number. */}}

{{/* What the values say of a role; the evaluator is a worker but for what is given for it. */}}
{{- define "tfleet.replica" -}}
{{- if eq .role "evaluator" -}}
{{- $replica := include "tfleet.over" (list .root.Values.worker .root.Values.evaluator) | fromYaml -}}
{{ toYaml (omit $replica "command" "topologySpreadConstraints") }}
{{- else -}}
{{ toYaml (get .root.Values .role) }}
{{- end -}}
{{- end }}

{{/* The pod template of a role: (dict "root" $ "role" "worker" "restartPolicy" "Never"). */}}
{{- define "tfleet.podTemplate" -}}
{{- $name := include "tfleet.fullname" .root -}}
{{- $replica := include "tfleet.replica" . | fromYaml -}}
{{- $tfjob := eq .root.Values.format "tfjob" -}}
{{- if and (eq .role "worker") (include "tfleet.colocated" .root) -}}
  {{- $_ := set $replica "affinity" (include "tfleet.besidePs" (dict "root" .root "affinity" $replica.affinity) | fromYaml) -}}
{{- end -}}
metadata:
  labels:
    {{- include "tfleet.selector" (dict "root" .root "component" .role) | nindent 4 }}
spec:
  {{- include "tfleet.podSpec" (dict
      "root" .root
      "replica" $replica
      "restartPolicy" .restartPolicy
      "grace" (int .root.Values.terminationGracePeriodSeconds)
      "spread" (include "tfleet.spread" (dict "root" .root "component" .role) | fromYamlArray)
      "subdomain" (ternary "" (printf "%s-%s" $name .role) (or $tfjob (eq .role "evaluator")))
      "name" (ternary "tensorflow" "main" $tfjob)
      "uses" (list "job" "token" "tls" "task" "storage" "scratch" "user")
      "container" (include "tfleet.replicaContainer" (dict "root" .root "role" .role "replica" $replica))
    ) | trim | nindent 2 }}
{{- end }}

{{- define "tfleet.colocated" -}}
{{- if eq (dig "ps_placement" "own" (.Values.job | default dict)) "colocated" }}yes{{ end -}}
{{- end }}

{{/* An affinity with one more condition: the node of the ps of the same index. (dict "root" $ "affinity" what the user gave) */}}
{{- define "tfleet.besidePs" -}}
{{- $affinity := deepCopy (.affinity | default dict) -}}
{{- $pods := $affinity.podAffinity | default dict -}}
{{- $beside := dict
    "topologyKey" "kubernetes.io/hostname"
    "labelSelector" (dict "matchLabels" (include "tfleet.selector" (dict "root" .root "component" "ps") | fromYaml))
    "matchLabelKeys" (list (ternary "training.kubeflow.org/replica-index" "batch.kubernetes.io/job-completion-index" (eq .root.Values.format "tfjob"))) -}}
{{- $required := append ($pods.requiredDuringSchedulingIgnoredDuringExecution | default list) $beside -}}
{{- $_ := set $pods "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "podAffinity" $pods -}}
{{ toYaml $affinity }}
{{- end }}

{{/* Pods of a role go to different nodes where that is possible, so that one dead node takes few of them. */}}
{{- define "tfleet.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "tfleet.selector" . | nindent 6 }}
{{- end }}

{{- define "tfleet.replicaContainer" -}}
{{- if .replica.command }}
command:
  {{- toYaml .replica.command | nindent 2 }}
{{- else }}
{{- /* Kubeflow's operator adds a TF_CONFIG with hosts as it names them; tfleet goes by PS_HOSTS and WORKER_HOSTS. */}}
command: {{ ternary (list "env" "-u" "TF_CONFIG" "python" "-m" "tfleet.backends.pod") (list "python" "-m" "tfleet.backends.pod") (eq .root.Values.format "tfjob") | toJson }}
args:
  - --run-dir
  - {{ include "tfleet.runDir" .root | quote }}
  {{- if .root.Values.resume }}
  - --resume
  {{- end }}
{{- end }}
env:
  {{- include "tfleet.replicaEnv" . | nindent 2 }}
{{- if ne .role "evaluator" }}
ports:
  - name: {{ ternary "tfjob-port" "data" (eq .root.Values.format "tfjob") }}
    containerPort: {{ int .replica.port }}
    protocol: TCP
  {{- if and (eq .role "ps") (include "tfleet.statusPort" .root | int) }}
  - name: status
    containerPort: {{ include "tfleet.statusPort" .root }}
    protocol: TCP
  {{- end }}
{{- end }}
{{- end }}

{{/* The replica environment. Kubernetes expands $(NAME) only of what stands above, and the index only from a field of the pod. */}}
{{- define "tfleet.replicaEnv" -}}
{{- $name := include "tfleet.fullname" .root -}}
{{- $tfjob := eq .root.Values.format "tfjob" -}}
- name: JOB_COMPLETION_INDEX
  valueFrom:
    fieldRef:
      fieldPath: {{ ternary "metadata.labels['training.kubeflow.org/replica-index']" "metadata.annotations['batch.kubernetes.io/job-completion-index']" $tfjob }}
- name: JOB_NAME
  value: {{ .role }}
- name: POD_NAME
  value: "{{ $name }}-{{ .role }}-$(JOB_COMPLETION_INDEX)"
{{- range $variable, $key := dict "PS_HOSTS" "ps.hostList" "TF_CLUSTER" "cluster" "WORKER_HOSTS" "worker.hostList" }}
- name: {{ $variable }}
  valueFrom:
    configMapKeyRef:
      name: {{ $name | quote }}
      key: {{ $key }}
{{- end }}
{{- if not $tfjob }}
- name: TF_CONFIG
  value: '{"cluster": $(TF_CLUSTER), "task": {"type": "{{ .role }}", "index": $(JOB_COMPLETION_INDEX)}}'
{{- end }}
- name: TFLEET_TOKEN_FILE
  value: /etc/tfleet/token/token
- name: TFLEET_JOB_FILE
  value: /etc/tfleet/job/job.yaml
- name: TFLEET_GRACE_SECONDS
  value: {{ int .root.Values.terminationGracePeriodSeconds | quote }}
- name: TFLEET_RENDEZVOUS
  value: "{{ $name }}{{ if $tfjob }}-ps-0{{ end }}:{{ int .root.Values.ps.port }}"
- name: TFLEET_POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- include "tfleet.commonEnv" .replica.env }}
{{- include "tfleet.userEnv" .replica.env }}
{{- end }}

{{/* Addresses of a role's replicas, separated by commas: (dict "root" $ "role" "ps"). */}}
{{- define "tfleet.hosts" -}}
{{- $name := include "tfleet.fullname" .root -}}
{{- $values := get .root.Values .role -}}
{{- $domain := ternary (printf "%s.svc" .root.Release.Namespace) (printf "%s-%s" $name .role) (eq .root.Values.format "tfjob") -}}
{{- $hosts := list -}}
{{- range until (int $values.number) -}}
  {{- $hosts = append $hosts (printf "%s-%s-%d.%s:%d" $name $.role . $domain (int $values.port)) -}}
{{- end -}}
{{ join "," $hosts }}
{{- end }}
