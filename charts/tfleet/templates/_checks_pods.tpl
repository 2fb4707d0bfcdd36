{{/* What Kubernetes would refuse of pods and services: when the Jobs are there already, and only their events tell it. */}}

{{- define "tfleet.check.mounts" -}}
{{- $roles := list "worker" "ps" -}}
{{- if include "tfleet.hasEvaluator" . }}{{ $roles = append $roles "evaluator" }}{{ end -}}
{{- range $role := $roles -}}
{{- $replica := include "tfleet.replica" (dict "root" $ "role" $role) | fromYaml -}}
{{- $pod := dict "root" $ "replica" $replica "uses" (list "job" "token" "tls" "task" "storage" "scratch" "user") -}}
{{- $names := list -}}
{{- range include "tfleet.volumes" $pod | fromYamlArray -}}
{{- if has .name $names -}}
{{- fail (printf "the pods of role %s would have two volumes %s: choose another name in volumes or %s.volumes" $role .name $role) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $paths := list -}}
{{- range include "tfleet.mounts" $pod | fromYamlArray -}}
{{- if not (has .name $names) -}}
{{- fail (printf "volumeMounts of role %s name the volume %s, which its pods do not have: add it to volumes or %s.volumes" $role .name $role) -}}
{{- end -}}
{{- $path := trimSuffix "/" .mountPath -}}
{{- if has $path $paths -}}
{{- fail (printf "the pods of role %s would have two volumes at %s: choose another mountPath; /tmp, /mnt/scratch and what is below /etc/tfleet are tfleet's own" $role $path) -}}
{{- end -}}
{{- $paths = append $paths $path -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "tfleet.check.pods" -}}
{{- range $name, $id := .Values.user -}}
{{- if eq (int $id) 0 -}}
{{- fail (printf "user.%s=0 is root, which no pod of tfleet may be: choose another id, or -1 to have the cluster give one" $name) -}}
{{- end -}}
{{- end -}}
{{- range $owner := list "worker" "ps" "evaluator" "serving" -}}
{{- range (get $.Values $owner).env -}}
{{- if and .valueFrom (hasKey . "value") -}}
{{- fail (printf "%s.env gives %s both value and valueFrom: leave one out" $owner .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.serving -}}
{{- if and .enabled (eq (int .port) (int .grpcPort)) -}}
{{- fail (printf "serving.port and serving.grpcPort are both %d: choose another number for one of them" (int .port)) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "accountbase64" "keybase64" -}}
{{- if not (regexMatch "^[A-Za-z0-9+/]*={0,2}$" (get $.Values.storage $name | default "")) -}}
{{- fail (printf "storage.%s is not base64: encode it with base64 -w 0, or use storage.azureFile.secretName" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (dig "tcp" false (.Values.job | default dict)) (not (include "tfleet.ownCommand" .)) -}}
{{- fail "job.tcp is for jobs on one machine, and pods always speak TCP: leave it out" -}}
{{- end -}}
{{- $memory := dig "shared_memory" "auto" (.Values.job | default dict) | default "auto" -}}
{{- if and (ne $memory "auto") (not (include "tfleet.ownCommand" .)) -}}
{{- fail (printf "job.shared_memory=%s is for jobs on one machine, and pods share no memory: leave it out" $memory) -}}
{{- end -}}
{{- if and (dig "listen" "" (.Values.job | default dict)) (not (include "tfleet.ownCommand" .)) -}}
{{- fail "job.listen is for jobs on one machine, and pods get workers by replicas or tfleet scale: leave it out" -}}
{{- end -}}
{{- end }}
