{{/* TLS between the pods of the job: one Secret with one certificate for all of them. */}}

{{/* Name of the Secret; empty: no TLS. */}}
{{- define "tfleet.tlsSecret" -}}
{{- if .Values.tls.secretName -}}
{{ .Values.tls.secretName }}
{{- else if .Values.tls.certManager.enabled -}}
{{ include "tfleet.fullname" . }}-tls
{{- end -}}
{{- end }}

{{/* The name that every pod's certificate has: pods' addresses are not known before. */}}
{{- define "tfleet.tlsServerName" -}}
{{ .Values.tls.serverName | default (include "tfleet.fullname" .) }}
{{- end }}

{{- define "tfleet.check.tls" -}}
{{- $job := .Values.job | default dict -}}
{{- range list "tls_cert" "tls_key" "tls_ca" -}}
{{- if get $job . -}}
{{- fail (printf "job.%s names a file, and pods get theirs from a Secret: leave it out and set tls.secretName" .) -}}
{{- end -}}
{{- end -}}
{{- if $job.tls_server_name -}}
{{- fail "job.tls_server_name is tls.serverName here: leave it out and set that" -}}
{{- end -}}
{{- with .Values.tls -}}
{{- $manager := .certManager -}}
{{- if and $manager.enabled (not $manager.issuerRef.name) -}}
{{- fail "tls.certManager.enabled needs tls.certManager.issuerRef.name, the Issuer that signs the certificate" -}}
{{- end -}}
{{- if and $manager.issuerRef.name (not $manager.enabled) -}}
{{- fail "tls.certManager.issuerRef does nothing without tls.certManager.enabled: set it to true, or leave the issuer out" -}}
{{- end -}}
{{- if and .serverName (not (include "tfleet.tlsSecret" $)) -}}
{{- fail "tls.serverName does nothing without TLS: set tls.secretName or tls.certManager.enabled, or leave it out" -}}
{{- end -}}
{{- end -}}
{{- if and (include "tfleet.tlsSecret" .) (include "tfleet.ownCommand" .) -}}
{{- fail "tls does nothing with worker.command: leave it out, your command's own runtime decides what it encrypts" -}}
{{- end -}}
{{- end }}
