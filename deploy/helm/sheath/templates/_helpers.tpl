{{- define "sheath.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "sheath.labels" -}}
app.kubernetes.io/name: sheath
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What never changes about a component's pods. */}}
{{- define "sheath.selector" -}}
app.kubernetes.io/name: sheath
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "sheath.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The agents' configuration file. */}}
{{- define "sheath.agent.config" -}}
{{- $namespaces := append .Values.systemNamespaces .Release.Namespace | uniq }}
{{- $identity := dict "controller" (dict) }}
{{- with .Values.agent.spire.adminSocket }}
{{- $identity = dict "spire" (dict "socket" .) }}
{{- end }}
{{- $pods := dict
  "root" .Values.agent.podsRoot
  "unknown" .Values.agent.unknownPods
  "hostNetwork" .Values.agent.holdHostNetwork }}
{{- $config := dict
  "trustDomain" .Values.trustDomain
  "identity" $identity
  "controller" (dict
    "roots" "/var/run/secrets/sheath/roots.pem"
    "token" "/var/run/secrets/sheath/token"
    "spiffeId" (printf "spiffe://%s/ns/%s/sa/sheath-controller" .Values.trustDomain .Release.Namespace))
  "capture" (dict "pods" $pods)
  "kubernetes" (dict
    "gate" .Values.agent.gate
    "systemNamespaces" $namespaces
    "runtimeClasses" .Values.agent.runtimeClasses
    "runtimeHandlers" .Values.agent.runtimeHandlers
    "bypass" .Values.agent.bypass
    "bypassServices" .Values.agent.bypassServices)
  "timeouts" (dict "drain" .Values.agent.drain)
  "log" (dict "level" .Values.log.level "format" .Values.log.format) }}
{{- if has .Values.agent.gate (list "auto" "cni") }}
{{- $paths := .Values.agent.paths }}
{{- $cni := dict "confDir" $paths.cniConfiguration "binDir" $paths.cniPlugins }}
{{- $_ := set $config.kubernetes "cni" $cni }}
{{- end }}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.agent.config)) }}
{{- end }}

{{/* The controller's configuration file. */}}
{{- define "sheath.controller.config" -}}
{{- $namespaces := append .Values.systemNamespaces .Release.Namespace | uniq }}
{{- $config := dict
  "trustDomain" .Values.trustDomain
  "listen" (printf "[::]:%d" (int .Values.controller.port))
  "health" (dict "listen" (printf "[::]:%d" (int .Values.controller.healthPort)))
  "namespace" .Release.Namespace
  "agentServiceAccount" (printf "%s/sheath-agent" .Release.Namespace)
  "systemNamespaces" $namespaces
  "identity" (dict "svidTtl" .Values.controller.svidTtl)
  "clusterRanges" .Values.controller.clusterRanges
  "serviceRanges" .Values.controller.serviceRanges
  "nodeRanges" .Values.controller.nodeRanges
  "log" (dict "level" .Values.log.level "format" .Values.log.format) }}
{{- with .Values.controller.metricsPort }}
{{- $_ := set $config "metrics" (dict "listen" (printf "[::]:%d" (int .))) }}
{{- end }}
{{- with .Values.ca.existingSecret }}
{{- $_ := set $config.identity "secret" . }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* The security context of what needs nothing of the node. */}}
{{- define "sheath.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* Annotations of what is there only while the chart is uninstalled, in the order of their numbers. */}}
{{- define "sheath.hook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
