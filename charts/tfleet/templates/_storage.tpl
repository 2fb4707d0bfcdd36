{{/* The one storage of a job. */}}

{{/* A share under its name of 2018 makes the default kind azureFile. */}}
{{- define "tfleet.storage.kind" -}}
{{- with .Values.storage }}{{ if and .sharename (eq .kind "newClaim") }}azureFile{{ else }}{{ .kind }}{{ end }}{{ end -}}
{{- end }}

{{- define "tfleet.storage.share" -}}
{{ .Values.storage.azureFile.share | default .Values.storage.sharename }}
{{- end }}

{{- define "tfleet.storage.azureSecret" -}}
{{ .Values.storage.azureFile.secretName | default (printf "%s-azure" (include "tfleet.fullname" .)) }}
{{- end }}

{{- define "tfleet.storage.mountPath" -}}
{{- if .Values.storage.mountPath -}}
{{ .Values.storage.mountPath | trimSuffix "/" }}
{{- else if eq (include "tfleet.storage.kind" .) "azureFile" -}}
/azure/{{ include "tfleet.storage.share" . }}
{{- else -}}
/mnt/tfleet
{{- end -}}
{{- end }}

{{- define "tfleet.runDir" -}}
{{- with .Values -}}
{{- $given := coalesce .runDir .hyperparams.logdir .logdir .traindir -}}
{{ $given | default (printf "%s/%s" (include "tfleet.storage.mountPath" $) (include "tfleet.fullname" $)) | trimSuffix "/" }}
{{- end -}}
{{- end }}

{{/* "yes" when the volume is written into the pods (inline csi), "pv" when it needs a PersistentVolume of its own. */}}
{{- define "tfleet.storage.csi" -}}
{{- $kind := include "tfleet.storage.kind" . -}}
{{- if or (and (eq $kind "nfs") .Values.storage.nfs.csi) (and (eq $kind "azureFile") .Values.storage.azureFile.csi) }}yes{{ end -}}
{{- end }}

{{- define "tfleet.storage.ownVolume" -}}
{{- if and (has (include "tfleet.storage.kind" .) (list "hostPath" "nfs" "azureFile")) (not (include "tfleet.storage.csi" .)) }}yes{{ end -}}
{{- end }}

{{/* A list. The share knows no owners: the mount says who owns the files. mfsymlinks and nobrl are what Azure's SMB needs for links and locks. */}}
{{- define "tfleet.storage.mountOptions" -}}
{{- if .Values.storage.mountOptions -}}
{{ toYaml .Values.storage.mountOptions }}
{{- else if eq (include "tfleet.storage.kind" .) "azureFile" -}}
{{- with .Values.user }}
{{- if gt (int .uid) 0 }}
- uid={{ int .uid }}
{{- end }}
{{- if gt (int .gid) 0 }}
- gid={{ int .gid }}
{{- end }}
{{- end }}
- dir_mode=0770
- file_mode=0660
- mfsymlinks
- nobrl
{{- else -}}
[]
{{- end -}}
{{- end }}

{{/* The source of the volume `storage` of a pod. */}}
{{- define "tfleet.storage.source" -}}
{{- $kind := include "tfleet.storage.kind" . -}}
{{- $options := include "tfleet.storage.mountOptions" . | fromYamlArray | join "," -}}
{{- if eq $kind "emptyDir" -}}
emptyDir: {}
{{- else if include "tfleet.storage.csi" . -}}
csi:
  {{- if eq $kind "nfs" }}
  driver: nfs.csi.k8s.io
  volumeAttributes:
    server: {{ .Values.storage.nfs.server | quote }}
    share: {{ .Values.storage.nfs.path | quote }}
  {{- else }}
  driver: file.csi.azure.com
  volumeAttributes:
    shareName: {{ include "tfleet.storage.share" . | quote }}
    secretName: {{ include "tfleet.storage.azureSecret" . | quote }}
  {{- end }}
    {{- with $options }}
    mountOptions: {{ . | quote }}
    {{- end }}
{{- else -}}
persistentVolumeClaim:
  claimName: {{ ternary .Values.storage.claim (include "tfleet.fullname" .) (eq $kind "claim") | quote }}
{{- end -}}
{{- end }}
