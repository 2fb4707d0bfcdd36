{{/* What the schema cannot say: one sentence each, of what was given, what is allowed, what to change. */}}

{{/* Helm allows names that Services and Jobs refuse, and the install would fail half-way. */}}
{{- define "tfleet.check.names" -}}
{{- $name := include "tfleet.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q will not do for a Service: use small letters, digits and '-', beginning with a letter; choose another release name, or set fullnameOverride" $name) -}}
{{- end -}}
{{- $last := sub (include "tfleet.elasticMax" . | int) 1 -}}
{{- $names := list (printf "%s-worker-%d" $name $last) (printf "%s-ps-%d" $name (sub (int .Values.ps.number) 1)) -}}
{{- if include "tfleet.hasEvaluator" . }}{{ $names = append $names (printf "%s-evaluator-0" $name) }}{{ end -}}
{{- if .Values.tensorboard.enabled }}{{ $names = append $names (printf "%s-tensorboard" $name) }}{{ end -}}
{{- if .Values.serving.enabled }}{{ $names = append $names (printf "%s-serving" $name) }}{{ end -}}
{{- if .Values.finisher.enabled }}{{ $names = append $names (printf "%s-finisher" $name) }}{{ end -}}
{{- if .Values.tool.kind }}{{ $names = append $names (printf "%s-%s" $name .Values.tool.id) }}{{ end -}}
{{- range $names -}}
{{- if gt (len .) 63 -}}
{{- fail (printf "the name %q is too long: with role and index it becomes %q, and Kubernetes allows 63 characters; choose a release name that is %d shorter, or set fullnameOverride" $name . (sub (len .) 63)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "tfleet.elasticMax" -}}
{{ dig "elastic" "max" 64 (.Values.job | default dict) | int }}
{{- end }}

{{/* Two values for one thing. */}}
{{- define "tfleet.check.twice" -}}
{{- $job := .Values.job | default dict -}}
{{- $old := .Values.hyperparams -}}
{{- range list
    (list "hyperparams.batchsize" $old.batchsize "batch_size")
    (list "hyperparams.learningrate" (float64 $old.learningrate) "learning_rate")
    (list "hyperparams.trainsteps" (ge (dig "trainsteps" -1 $old | int) 0) "steps")
    (list "hyperparams.datadir" $old.datadir "data_dir")
    (list "deadline" (float64 .Values.deadline) "deadline") -}}
{{- if and (index . 1) (hasKey $job (index . 2)) -}}
{{- fail (printf "%s and job.%s say the same thing: give only one of them" (index . 0) (index . 2)) -}}
{{- end -}}
{{- end -}}
{{- if and $old.hiddenunits (hasKey ($job.params | default dict) "hidden_units") -}}
{{- fail "hyperparams.hiddenunits and job.params.hidden_units say the same thing: give only one of them" -}}
{{- end -}}
{{- if and (ge (dig "trainsteps" -1 $old | int) 0) $job.epochs -}}
{{- fail "hyperparams.trainsteps and job.epochs both say how long to train: give only one of them" -}}
{{- end -}}
{{- range list (list "workers" "worker") (list "ps" "ps") -}}
{{- $number := (get $.Values (index . 1)).number | int -}}
{{- if and (hasKey $job (index . 0)) (ne (get $job (index . 0) | int) $number) -}}
{{- fail (printf "job.%s=%d and %s.number=%d differ: leave job.%s out, %s.number says it" (index . 0) (get $job (index . 0) | int) (index . 1) $number (index . 0) (index . 1)) -}}
{{- end -}}
{{- end -}}
{{- $dirs := list -}}
{{- range $name, $given := dict "runDir" .Values.runDir "hyperparams.logdir" $old.logdir "logdir" .Values.logdir "traindir" .Values.traindir -}}
{{- if $given }}{{ $dirs = append $dirs $name }}{{ end -}}
{{- end -}}
{{- if gt (len $dirs) 1 -}}
{{- fail (printf "%s all name the run directory: give only runDir" (join ", " (sortAlpha $dirs))) -}}
{{- end -}}
{{- end }}

{{- define "tfleet.check.replicas" -}}
{{- $own := include "tfleet.ownCommand" . -}}
{{- $job := .Values.job | default dict -}}
{{- if .Values.ps.privileged -}}
{{- fail "ps.privileged=true is not allowed: a ps needs no privileges, and restricted namespaces refuse them; leave it out" -}}
{{- end -}}
{{- if ne .Values.podManagementPolicy "Parallel" -}}
{{- fail (printf "podManagementPolicy=%s is not possible, because Jobs have replaced the StatefulSets: all pods start at once; leave it out or set Parallel" .Values.podManagementPolicy) -}}
{{- end -}}
{{- $max := include "tfleet.elasticMax" . | int -}}
{{- if gt (int .Values.worker.number) $max -}}
{{- fail (printf "worker.number=%d is more than job.elastic.max=%d: lower it, or raise job.elastic.max (1024 at most) before the job starts" (int .Values.worker.number) $max) -}}
{{- end -}}
{{- $min := dig "elastic" "min" 1 $job | int -}}
{{- if and (not $own) (lt (int .Values.worker.number) $min) -}}
{{- fail (printf "worker.number=%d is less than job.elastic.min=%d: raise it, or lower job.elastic.min before the job starts" (int .Values.worker.number) $min) -}}
{{- end -}}
{{- if and (include "tfleet.colocated" .) (ne (int .Values.worker.number) (int .Values.ps.number)) -}}
{{- fail (printf "worker.number=%d and ps.number=%d differ, but job.ps_placement=colocated puts one ps beside each worker: give the same number of both, which cannot change while the job runs" (int .Values.worker.number) (int .Values.ps.number)) -}}
{{- end -}}
{{- if $own -}}
{{- include "tfleet.check.ownCommand" . -}}
{{- else -}}
{{- include "tfleet.check.taskMode" . -}}
{{- end -}}
{{- range $role := list "worker" "ps" "evaluator" -}}
{{- include "tfleet.check.env" (dict "name" (printf "%s.env" $role) "env" (get $.Values $role).env) -}}
{{- end -}}
{{- end }}

{{- define "tfleet.check.ownCommand" -}}
{{- if not (and .Values.worker.command .Values.ps.command) -}}
{{- fail "worker.command and ps.command go together, since tfleet's own workers need tfleet's own ps: give both, or neither" -}}
{{- end -}}
{{- if include "tfleet.hasEvaluator" . -}}
{{- fail "job.evaluation.evaluator does nothing with worker.command: leave it out, or let your command evaluate" -}}
{{- end -}}
{{- if .Values.resume -}}
{{- fail "resume does nothing with worker.command: leave it out, and let your command look for its checkpoints" -}}
{{- end -}}
{{- end }}

{{- define "tfleet.check.taskMode" -}}
{{- $job := .Values.job | default dict -}}
{{- if not $job.task -}}
{{- fail "job.task is empty: set it to mnist, a module:object, or a path/to/file.py:object" -}}
{{- end -}}
{{- range $role := list "worker" "evaluator" -}}
{{- $limit := dig "limit" "memory" "" (get $.Values $role) | include "tfleet.text" -}}
{{- if and $limit (lt (include "tfleet.quantity" $limit | float64) 805306368.0) -}}
{{- fail (printf "%s.limit.memory=%s is too little, since TensorFlow and Keras alone take 487 MB: give at least 768Mi (a small limit is enough for ps.limit.memory)" $role $limit) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (int .Values.ps.port) (include "tfleet.statusPort" . | int)) -}}
{{- fail (printf "ps.port and job.status_port are both %d: choose another number for one of them" (int .Values.ps.port)) -}}
{{- end -}}
{{- if .Values.worker.successIndex0 -}}
{{- fail "worker.successIndex0 does nothing without worker.command: leave it out, tfleet's workers know when the job is done" -}}
{{- end -}}
{{- if .Values.finisher.enabled -}}
{{- fail "finisher.enabled does nothing without ps.command: leave it out, tfleet's parameter servers end with the job" -}}
{{- end -}}
{{- with .Values.taskFile -}}
{{- if and .name (not (hasPrefix (printf "%s:" .name) $job.task)) -}}
{{- fail (printf "taskFile.name=%s is given but job.task=%s does not use it: set job.task=%s:object, or leave taskFile out" .name $job.task .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* (dict "name" "worker.env" "env" list) */}}
{{- define "tfleet.check.env" -}}
{{- $seen := list -}}
{{- range .env -}}
{{- if or (has .name (list "JOB_NAME" "POD_NAME" "PS_HOSTS" "WORKER_HOSTS" "TF_CLUSTER" "TF_CONFIG" "JOB_COMPLETION_INDEX")) (hasPrefix "TFLEET_" .name) -}}
{{- fail (printf "%s sets %s, which tells a replica who it is and where the others are: leave it out" $.name .name) -}}
{{- end -}}
{{- if has .name $seen -}}
{{- fail (printf "%s sets %s twice: leave one out" $.name .name) -}}
{{- end -}}
{{- $seen = append $seen .name -}}
{{- end -}}
{{- end }}

{{- define "tfleet.check.storage" -}}
{{- $own := include "tfleet.ownCommand" . -}}
{{- $kind := include "tfleet.storage.kind" . -}}
{{- with .Values.storage -}}
{{- range list
    (list "claim" "claim" .claim)
    (list "className" "newClaim" .className)
    (list "hostPath.path" "hostPath" .hostPath.path)
    (list "nfs.server" "nfs" .nfs.server)
    (list "nfs.path" "nfs" .nfs.path)
    (list "nfs.csi" "nfs" .nfs.csi)
    (list "azureFile.share" "azureFile" .azureFile.share)
    (list "azureFile.secretName" "azureFile" .azureFile.secretName)
    (list "azureFile.secretNamespace" "azureFile" .azureFile.secretNamespace)
    (list "azureFile.csi" "azureFile" .azureFile.csi)
    (list "sharename" "azureFile" .sharename)
    (list "accountbase64" "azureFile" .accountbase64)
    (list "keybase64" "azureFile" .keybase64) -}}
{{- if and (index . 2) (ne $kind (index . 1)) -}}
{{- fail (printf "storage.%s does nothing with storage.kind=%s: leave it out, or set storage.kind=%s" (index . 0) $kind (index . 1)) -}}
{{- end -}}
{{- end -}}
{{- if and .mountOptions (not (has $kind (list "nfs" "azureFile"))) -}}
{{- fail (printf "storage.mountOptions does nothing with storage.kind=%s: leave it out, or set storage.kind to nfs or azureFile" $kind) -}}
{{- end -}}
{{- if and (eq $kind "emptyDir") (not $own) -}}
{{- fail "storage.kind=emptyDir gives each pod a folder of its own, but ps and workers need one that all of them see: set storage.kind to newClaim, claim, hostPath, nfs or azureFile" -}}
{{- end -}}
{{- if and (eq $kind "emptyDir") (or $.Values.tensorboard.enabled $.Values.serving.enabled) -}}
{{- fail "storage.kind=emptyDir gives each pod a folder of its own, so that tensorboard and serving would see nothing: choose another storage.kind" -}}
{{- end -}}
{{- if and (eq $kind "claim") (not .claim) -}}
{{- fail "storage.kind=claim needs storage.claim, the name of the existing PersistentVolumeClaim" -}}
{{- end -}}
{{- if and (eq $kind "hostPath") (not .hostPath.path) -}}
{{- fail "storage.kind=hostPath needs storage.hostPath.path, a folder that is the same on every node" -}}
{{- end -}}
{{- if and (eq $kind "nfs") (not (and .nfs.server .nfs.path)) -}}
{{- fail "storage.kind=nfs needs storage.nfs.server and storage.nfs.path" -}}
{{- end -}}
{{- if eq $kind "azureFile" }}{{ include "tfleet.check.azure" $ }}{{ end -}}
{{- end -}}
{{- include "tfleet.check.runDir" . -}}
{{- include "tfleet.check.claim" . -}}
{{- end }}

{{- define "tfleet.check.azure" -}}
{{- with .Values.storage -}}
{{- if and .sharename .azureFile.share -}}
{{- fail "storage.sharename and storage.azureFile.share say the same thing: give only storage.azureFile.share" -}}
{{- end -}}
{{- if not (or .sharename .azureFile.share) -}}
{{- fail "storage.kind=azureFile needs storage.azureFile.share, the name of the share" -}}
{{- end -}}
{{- if ne (empty .accountbase64) (empty .keybase64) -}}
{{- fail "storage.accountbase64 and storage.keybase64 go together: give both, or storage.azureFile.secretName" -}}
{{- end -}}
{{- if and .accountbase64 .azureFile.secretName -}}
{{- fail "storage.accountbase64 and storage.azureFile.secretName both say how to log in: give only storage.azureFile.secretName" -}}
{{- end -}}
{{- if not (or .accountbase64 .azureFile.secretName) -}}
{{- fail "storage.kind=azureFile needs storage.azureFile.secretName, a Secret with azurestorageaccountname and azurestorageaccountkey" -}}
{{- end -}}
{{- if and .azureFile.secretNamespace (or .azureFile.csi .accountbase64) -}}
{{- fail "storage.azureFile.secretNamespace does nothing with storage.azureFile.csi or storage.accountbase64, whose Secret is in the release's namespace: leave it out" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A run directory beside the storage would be another folder in each pod. */}}
{{- define "tfleet.check.runDir" -}}
{{- $dir := include "tfleet.runDir" . -}}
{{- $mounts := list (include "tfleet.storage.mountPath" .) -}}
{{- range .Values.volumeMounts }}{{ $mounts = append $mounts (trimSuffix "/" .mountPath) }}{{ end -}}
{{- $found := false -}}
{{- range $mounts }}{{ if hasPrefix (printf "%s/" .) $dir }}{{ $found = true }}{{ end }}{{ end -}}
{{- if not (or $found (include "tfleet.ownCommand" .)) -}}
{{- fail (printf "the run directory %s is not on the storage: choose a folder below %s for runDir, or leave it out" $dir (first $mounts)) -}}
{{- end -}}
{{- end }}

{{/* Helm takes over a claim that this release left behind, and fails in the midst of an install on any other. */}}
{{- define "tfleet.check.claim" -}}
{{- if or (eq (include "tfleet.storage.kind" .) "newClaim") (include "tfleet.storage.ownVolume" .) -}}
{{- $name := include "tfleet.fullname" . -}}
{{- with lookup "v1" "PersistentVolumeClaim" .Release.Namespace $name -}}
{{- if ne (dig "metadata" "annotations" "meta.helm.sh/release-name" "" .) $.Release.Name -}}
{{- fail (printf "there is a PersistentVolumeClaim %s already that this release did not make: use it with storage.kind=claim and storage.claim=%s, or choose another release name" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "tfleet.check.rest" -}}
{{- if and .Values.taskFile.name (not .Values.taskFile.content) -}}
{{- fail (printf "taskFile.name=%s has no content: give it with --set-file taskFile.content=%s" .Values.taskFile.name .Values.taskFile.name) -}}
{{- end -}}
{{- if and .Values.taskFile.content (not .Values.taskFile.name) -}}
{{- fail "taskFile.content has no name: set taskFile.name, such as task.py" -}}
{{- end -}}
{{- if gt (len .Values.taskFile.content) 900000 -}}
{{- fail (printf "taskFile.content has %d bytes, and a ConfigMap takes 1 MB: put the file on the storage, or into an image of your own" (len .Values.taskFile.content)) -}}
{{- end -}}
{{- if and .Values.scratch.sizeLimit (not .Values.scratch.enabled) -}}
{{- fail "scratch.sizeLimit does nothing without scratch.enabled: set scratch.enabled=true, or leave it out" -}}
{{- end -}}
{{- if and (eq .Values.format "tfjob") (or .Values.tensorboard.enabled .Values.serving.enabled .Values.finisher.enabled) -}}
{{- fail "tensorboard, serving and finisher do nothing with format=tfjob: leave them out, or set format=jobs" -}}
{{- end -}}
{{- if and .Values.tool.kind (not .Values.tool.id) -}}
{{- fail "tool.kind needs tool.id, which names the pod" -}}
{{- end -}}
{{- if and .Values.tool.arguments (not (has .Values.tool.kind (list "eval" "export"))) -}}
{{- fail "tool.arguments is for tool.kind eval and export only: leave it out" -}}
{{- end -}}
{{- if and .Values.workspace.subjects (not .Values.workspace.role) -}}
{{- fail "workspace.subjects does nothing without workspace.role: set workspace.role=true, or leave it out" -}}
{{- end -}}
{{- include "tfleet.check.env" (dict "name" "serving.env" "env" .Values.serving.env) -}}
{{- include "tfleet.check.monitoring" . -}}
{{- end }}

{{- define "tfleet.check.monitoring" -}}
{{- $monitoring := .Values.monitoring -}}
{{- range $name := list "serviceMonitor" "dashboard" "prometheusRule" -}}
{{- if (get $monitoring $name).enabled -}}
{{- if eq $.Values.format "tfjob" -}}
{{- fail (printf "monitoring.%s does nothing with format=tfjob: leave it out, or set format=jobs" $name) -}}
{{- end -}}
{{- if include "tfleet.ownCommand" $ -}}
{{- fail (printf "monitoring.%s does nothing with worker.command, since only tfleet's own ps have metrics: leave it out" $name) -}}
{{- end -}}
{{- if not (include "tfleet.statusPort" $ | int) -}}
{{- fail (printf "monitoring.%s needs the status port, which job.status_port=0 turns off: give it a number, such as 8080" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $rule := $monitoring.prometheusRule -}}
{{- if and $rule.enabled (not $monitoring.serviceMonitor.enabled) -}}
{{- fail "monitoring.prometheusRule needs the metrics that monitoring.serviceMonitor has read: set monitoring.serviceMonitor.enabled=true too" -}}
{{- end -}}
{{- $every := dig "checkpoint" "every_seconds" 60 (.Values.job | default dict) | float64 -}}
{{- if and $rule.enabled (ge $every (mulf 60.0 $rule.commitAgeMinutes)) -}}
{{- fail (printf "monitoring.prometheusRule.commitAgeMinutes=%d is no longer than job.checkpoint.every_seconds=%s, so that there would always be an alert: raise it" (int $rule.commitAgeMinutes) (toString $every)) -}}
{{- end -}}
{{- end }}

{{/* Kubernetes refuses these with kilobytes, after half of the objects have changed. */}}
{{- define "tfleet.check.upgrade" -}}
{{- $name := include "tfleet.fullname" . -}}
{{- $cure := printf "uninstall %s and install it again with --set resume=true to go on from its last commit" .Release.Name -}}
{{- if eq .Values.format "jobs" -}}
{{- with lookup "batch/v1" "Job" .Release.Namespace (printf "%s-ps" $name) -}}
{{- $number := dig "metadata" "annotations" "tfleet.dev/number" "" . -}}
{{- if and $number (ne $number (int $.Values.ps.number | toString)) -}}
{{- fail (printf "ps.number is %s in the running job %s and cannot become %d: keep it (--reuse-values), or %s" $number $name (int $.Values.ps.number) $cure) -}}
{{- end -}}
{{- end -}}
{{- $fingerprint := include "tfleet.fingerprint" . -}}
{{- range $suffix := list "ps" "worker" "evaluator" -}}
{{- include "tfleet.check.job" (dict "root" $ "name" (printf "%s-%s" $name $suffix) "fingerprint" $fingerprint "cure" $cure) -}}
{{- end -}}
{{- if .Values.finisher.enabled -}}
{{- include "tfleet.check.job" (dict "root" $ "name" (printf "%s-finisher" $name) "fingerprint" (include "tfleet.fixed.finisher" . | sha256sum) "cure" "set finisher.enabled=false first") -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "tfleet.check.job" -}}
{{- with lookup "batch/v1" "Job" .root.Release.Namespace .name -}}
{{- $there := dig "metadata" "annotations" "tfleet.dev/template" "" . -}}
{{- if and $there (ne $there $.fingerprint) -}}
{{- fail (printf "the Job %s is there already and can change its number of workers only, but these values change its pods or the job's settings: give the other values as they were (--reuse-values), or %s" $.name $.cure) -}}
{{- end -}}
{{- end -}}
{{- end }}
