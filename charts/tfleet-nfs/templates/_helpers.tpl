{{/* The name of every object: it becomes the name of a Service and, with -0, of a pod. */}}
{{- define "tfleet-nfs.fullname" -}}
{{- $name := .Release.Name -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if .Values.nameOverride -}}
{{- $name = printf "%s-%s" .Release.Name .Values.nameOverride -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q cannot be the name of a Service: use lower-case letters, digits and '-', beginning with a letter" $name) -}}
{{- end -}}
{{- if gt (len $name) 52 -}}
{{- fail (printf "the name %q has %d letters: at most 52 are allowed, so that the pods' names fit" $name (len $name)) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "tfleet-nfs.selector" -}}
app.kubernetes.io/name: tfleet-nfs
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "tfleet-nfs.labels" -}}
{{ include "tfleet-nfs.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* One sentence for what the schema cannot say. */}}
{{- define "tfleet-nfs.check" -}}
{{- $s := .Values.storage -}}
{{- if and (eq $s.kind "claim") (not $s.claim) -}}
{{- fail "storage.kind is claim: set storage.claim to the name of a PersistentVolumeClaim of this namespace" -}}
{{- end -}}
{{- if and (eq $s.kind "hostPath") (not $s.hostPath) -}}
{{- fail "storage.kind is hostPath: set storage.hostPath to a folder of the node" -}}
{{- end -}}
{{- if and (ne $s.kind "claim") $s.claim -}}
{{- fail (printf "storage.claim is set, but storage.kind is %s: set storage.kind to claim, or leave storage.claim empty" $s.kind) -}}
{{- end -}}
{{- if and (ne $s.kind "hostPath") $s.hostPath -}}
{{- fail (printf "storage.hostPath is set, but storage.kind is %s: set storage.kind to hostPath, or leave storage.hostPath empty" $s.kind) -}}
{{- end -}}
{{- end -}}

{{/* Ganesha's configuration, https://github.com/nfs-ganesha/nfs-ganesha/tree/V4.3/src/config_samples */}}
{{- define "tfleet-nfs.config" -}}
NFS_CORE_PARAM {
    Protocols = 4;
    NFS_Port = 2049;
    Enable_UDP = false;
    Enable_NLM = false;
    Enable_RQUOTA = false;
}
NFSV4 {
    # What clients hold is kept on the volume: after a restart they get it back.
    RecoveryBackend = fs;
    RecoveryRoot = /data/.ganesha;
    Lease_Lifetime = {{ .Values.leaseSeconds }};
    Grace_Period = {{ .Values.leaseSeconds }};
    # Owners travel as numbers: there are no user names here.
    Only_Numeric_Owners = true;
}
NFS_KRB5 {
    Active_krb5 = false;
}
EXPORT {
    Export_Id = 1;
    Path = /data/export;
    Pseudo = {{ .Values.export.path }};
    Protocols = 4;
    Transports = TCP;
    SecType = sys;
    Squash = {{ .Values.export.squash }};
    Anonymous_Uid = {{ eq .Values.export.squash "all_squash" | ternary .Values.user.uid 65534 }};
    Anonymous_Gid = {{ eq .Values.export.squash "all_squash" | ternary .Values.user.gid 65534 }};
    Access_Type = {{ empty .Values.export.clients | ternary "RW" "None" }};
    FSAL {
        Name = VFS;
    }
    {{- with .Values.export.clients }}
    CLIENT {
        # The pod's own probe, which asks only whether the export is there.
        Clients = 127.0.0.1;
        Access_Type = MDONLY_RO;
    }
    CLIENT {
        Clients = {{ join ", " . }};
        Access_Type = RW;
        Squash = {{ $.Values.export.squash }};
    }
    {{- end }}
}
LOG {
    Default_Log_Level = EVENT;
    COMPONENTS {
        # Neither D-Bus nor Kerberos is there: their complaints are expected.
        DBUS = FATAL;
        NFS_CB = MAJ;
    }
}
{{- end -}}
