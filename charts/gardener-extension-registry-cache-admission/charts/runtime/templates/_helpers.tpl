{{- /*
SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors

SPDX-License-Identifier: Apache-2.0
*/ -}}
{{- /* The program looks for a Service of this name. */ -}}
{{- define "name" -}}
gardener-extension-admission-registry-cache
{{- end -}}

{{- /* The labels by which pods are selected; they can never change. */ -}}
{{- define "labels" -}}
app.kubernetes.io/name: {{ include "name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
