{{/* Every pod of the chart is made by "tfleet.podSpec". */}}

{{/*
The spec of a pod with one container.
  root, component
  replica: what values say of image, limit, request, gpuCount, nodeSelector, tolerations, affinity, ...
  container: YAML of the container's command, args, env, ports
  uses: which of job, token, tls, storage, scratch, task, user are mounted
  optional: restartPolicy, subdomain, spread (unless the replica has constraints), serviceAccount (with apiToken),
    deadline and grace in seconds, readOnly (the storage), name of the container
*/}}
{{- define "tfleet.podSpec" -}}
{{- $values := .root.Values -}}
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
{{- with .subdomain }}
subdomain: {{ . | quote }}
{{- end }}
{{- with .deadline }}
activeDeadlineSeconds: {{ . }}
{{- end }}
serviceAccountName: {{ .serviceAccount | default (include "tfleet.serviceAccount" .root) | quote }}
automountServiceAccountToken: {{ .apiToken | default false }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .grace | default 30 }}
securityContext:
  runAsNonRoot: true
  {{- if gt (int $values.user.uid) 0 }}
  runAsUser: {{ int $values.user.uid }}
  {{- end }}
  {{- if gt (int $values.user.gid) 0 }}
  runAsGroup: {{ int $values.user.gid }}
  fsGroup: {{ int $values.user.gid }}
  # A large volume is not searched through at each start.
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with $values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .replica.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .replica.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .replica.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .replica.topologySpreadConstraints | default .spread }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  {{- range list "not-ready" "unreachable" }}
  - key: node.kubernetes.io/{{ . }}
    operator: Exists
    effect: NoExecute
    tolerationSeconds: {{ int $values.nodeTolerationSeconds }}
  {{- end }}
  {{- with .replica.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
containers:
  - name: {{ .name | default "main" }}
    image: {{ include "tfleet.image" (dict "root" .root "image" .replica.image) | quote }}
    imagePullPolicy: {{ .replica.image.pullPolicy | default "IfNotPresent" }}
    {{- .container | trim | nindent 4 }}
    # What a command said last is in the pod's status, where it did not write a message of its own.
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      {{- include "tfleet.resources" .replica | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      capabilities:
        drop: [ALL]
      seccompProfile:
        type: RuntimeDefault
    volumeMounts:
      {{- include "tfleet.mounts" . | nindent 6 }}
volumes:
  {{- include "tfleet.volumes" . | nindent 2 }}
{{- end }}

{{/* resources of a container. A request above the limit is lowered to it, so that a small limit alone is enough to give. */}}
{{- define "tfleet.resources" -}}
{{- $limits := dict -}}
{{- $requests := dict -}}
{{- range $name := list "cpu" "memory" -}}
  {{- $limit := include "tfleet.text" (get ($.limit | default dict) $name) -}}
  {{- $request := include "tfleet.text" (get ($.request | default dict) $name) -}}
  {{- if $limit -}}
    {{- $_ := set $limits $name $limit -}}
    {{- if and $request (gt (include "tfleet.quantity" $request | float64) (include "tfleet.quantity" $limit | float64)) -}}
      {{- $request = $limit -}}
    {{- end -}}
  {{- end -}}
  {{- if $request }}{{ $_ := set $requests $name $request }}{{ end -}}
{{- end -}}
{{- with $.gpuCount }}{{ $_ := set $limits "nvidia.com/gpu" (include "tfleet.text" .) }}{{ end -}}
{{- toYaml (dict "limits" $limits "requests" $requests) -}}
{{- end }}

{{/* More environment, as the user gave it; numbers become text. */}}
{{- define "tfleet.userEnv" -}}
{{- range . }}
- name: {{ .name | quote }}
  {{- if .valueFrom }}
  valueFrom:
    {{- toYaml .valueFrom | nindent 4 }}
  {{- else }}
  value: {{ include "tfleet.text" .value | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What programs need on a read-only root; the user's own setting goes before. Argument: the user's list. */}}
{{- define "tfleet.commonEnv" -}}
{{- $given := list -}}
{{- range . }}{{ $given = append $given .name }}{{ end -}}
{{- range $name, $value := dict "HOME" "/tmp" "PYTHONUNBUFFERED" "1" }}
{{- if not (has $name $given) }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tfleet.mounts" -}}
- name: tfleet-tmp
  mountPath: /tmp
{{- if has "job" .uses }}
- name: tfleet-job
  mountPath: /etc/tfleet/job
  readOnly: true
{{- end }}
{{- if has "token" .uses }}
- name: tfleet-token
  mountPath: /etc/tfleet/token
  readOnly: true
{{- end }}
{{- if and (has "tls" .uses) (include "tfleet.tlsSecret" .root) }}
- name: tfleet-tls
  mountPath: /etc/tfleet/tls
  readOnly: true
{{- end }}
{{- if and (has "task" .uses) .root.Values.taskFile.name }}
- name: tfleet-task
  mountPath: /etc/tfleet/task
  readOnly: true
{{- end }}
{{- if has "storage" .uses }}
- name: tfleet-storage
  mountPath: {{ include "tfleet.storage.mountPath" .root | quote }}
  {{- if .readOnly }}
  readOnly: true
  {{- end }}
{{- end }}
{{- if and (has "scratch" .uses) .root.Values.scratch.enabled }}
- name: tfleet-scratch
  mountPath: /mnt/scratch
{{- end }}
{{- if has "user" .uses }}
{{- with concat (.root.Values.volumeMounts | default list) (.replica.volumeMounts | default list) }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tfleet.volumes" -}}
- name: tfleet-tmp
  emptyDir: {}
{{- if has "job" .uses }}
- name: tfleet-job
  configMap:
    name: {{ include "tfleet.fullname" .root | quote }}
    items:
      - key: job.yaml
        path: job.yaml
      - key: workers
        path: workers
{{- end }}
{{- if has "token" .uses }}
- name: tfleet-token
  secret:
    secretName: {{ include "tfleet.tokenSecret" .root | quote }}
    items:
      - key: token
        path: token
{{- end }}
{{- if and (has "tls" .uses) (include "tfleet.tlsSecret" .root) }}
- name: tfleet-tls
  secret:
    secretName: {{ include "tfleet.tlsSecret" .root | quote }}
    items:
      {{- range list "tls.crt" "tls.key" "ca.crt" }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}
{{- if and (has "task" .uses) .root.Values.taskFile.name }}
- name: tfleet-task
  configMap:
    name: {{ printf "%s-task" (include "tfleet.fullname" .root) | quote }}
{{- end }}
{{- if has "storage" .uses }}
- name: tfleet-storage
  {{- include "tfleet.storage.source" .root | nindent 2 }}
{{- end }}
{{- if and (has "scratch" .uses) .root.Values.scratch.enabled }}
- name: tfleet-scratch
  emptyDir:
    {{- with .root.Values.scratch.sizeLimit }}
    sizeLimit: {{ include "tfleet.text" . | quote }}
    {{- else }} {}
    {{- end }}
{{- end }}
{{- if has "user" .uses }}
{{- with concat (.root.Values.volumes | default list) (.replica.volumes | default list) }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}
