{{- define "operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- /* At most 52 characters, so that every suffix fits into the 63 of a label. */ -}}
{{- define "operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "operator.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "operator.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create is false: set serviceAccount.name" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "operator.image" -}}
{{- $repository := required "set image.repository (and image.tag or image.digest): the image of private-registry-operator that your nodes can pull" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "operator.subject" -}}
- kind: ServiceAccount
  name: {{ include "operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{- /* What the operator may do where registries live: in every namespace, or in each that it watches. Nothing more is used. */ -}}
{{- define "operator.rules" -}}
# What users write.
- apiGroups: [privateregistry.dev]
  resources: [privateregistries]
  verbs: [get, list, watch, patch]
# What the operator answers; server-side apply is a patch.
- apiGroups: [privateregistry.dev]
  resources: [privateregistries/status]
  verbs: [patch]
# Children carry an owner reference that blocks the owner's deletion; clusters that enforce permissions on such references ask for this.
- apiGroups: [privateregistry.dev]
  resources: [privateregistries/finalizers]
  verbs: [update]
# The registry's workload: Always and UnlessStopped are Deployments.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# OnFailure and Never are Jobs: a Deployment restarts its pods whatever happens.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# Service: the address. ServiceAccount: an identity without a token. Both stay as long as the registry does.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
# ConfigMap: the public bundle of authorities. Secrets: certificate, authority, logins, configuration; and those that manifests refer to.
# RBAC cannot narrow this by label or by name.
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get, list, watch, create, patch, delete]
# The volume. No delete: the operator never deletes data. Under deletionPolicy Delete the cluster's garbage collection does.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# Registries with more than one replica are drained one pod at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Why a registry does not start: its pods' state and exit codes. Never their logs, never exec. Patch is for an annotation by which a kubelet
# reads a changed table of users at once: whoever was removed is out a second later.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# What changed, for `kubectl describe`.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
