{{/* What an agent sees of its node: the part of a pod's specification that the clean-up shares. */}}
{{- define "sheath.agent.env" -}}
- { name: SHEATH_NODE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
{{- with .Values.agent.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sheath.agent.security" -}}
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
{{- if .Values.agent.privileged }}
privileged: true
{{- else }}
privileged: false
seccompProfile: { type: Unconfined }
appArmorProfile: { type: Unconfined }
seLinuxOptions: { type: spc_t }
capabilities:
  drop: [ALL]
  add:
    {{- toYaml .Values.agent.capabilities | nindent 4 }}
{{- end }}
{{- end }}

{{- define "sheath.agent.mounts" -}}
{{- $paths := .Values.agent.paths }}
- { name: configuration, mountPath: /etc/sheath, readOnly: true }
- { name: bpf, mountPath: /sys/fs/bpf }
- { name: run, mountPath: /run/sheath }
{{- if has .Values.agent.gate (list "auto" "cni") }}
- { name: cni-configuration, mountPath: {{ $paths.cniConfiguration }} }
- { name: cni-plugins, mountPath: {{ $paths.cniPlugins }} }
{{- end }}
{{- end }}

{{- define "sheath.agent.volumes" -}}
{{- $paths := .Values.agent.paths }}
- { name: configuration, configMap: { name: {{ .configMap }} } }
# Pins outlive the agent: the file system must be the node's, and be there.
- { name: bpf, hostPath: { path: {{ $paths.bpf }}, type: Directory } }
- { name: run, hostPath: { path: {{ $paths.run }}, type: DirectoryOrCreate } }
{{- if has .Values.agent.gate (list "auto" "cni") }}
- { name: cni-configuration, hostPath: { path: {{ $paths.cniConfiguration }}, type: DirectoryOrCreate } }
- { name: cni-plugins, hostPath: { path: {{ $paths.cniPlugins }}, type: DirectoryOrCreate } }
{{- end }}
{{- end }}
