#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Writes all generated files anew: deep copies, defaults, the CRD, the API reference, and
# the registration of the extension.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

module=github.com/gardener/gardener-extension-registry-cache
apis=(./pkg/apis/config/v1alpha1 ./pkg/apis/mirror/v1alpha1 ./pkg/apis/registry/v1alpha3)

{ read -r controller_gen; read -r defaulter_gen; read -r crd_ref_docs; } < <(hack/tool.sh controller-gen defaulter-gen crd-ref-docs)

"$controller_gen" object:headerFile=hack/boilerplate.go.txt "${apis[@]/#/paths=}" paths=./pkg/apis/shoot/v1alpha3
"$controller_gen" crd:headerFile=hack/boilerplate.yaml.txt paths=./pkg/apis/shoot/v1alpha3 output:crd:dir=pkg/resources/crd
"$defaulter_gen" --go-header-file hack/boilerplate.go.txt --output-file zz_generated.defaults.go "${apis[@]/#\.\//$module/}"

# reference CONFIG SOURCE PAGE
reference() {
  "$crd_ref_docs" --log-level ERROR --config "$1" --renderer markdown --source-path "$2" --output-path "$3"
}
reference hack/api-reference.yaml pkg/apis docs/usage/api-reference.md
reference hack/api-reference-others.yaml pkg/apis/shoot docs/usage/registrycache-reference.md
reference hack/api-reference-others.yaml pkg/apis/config docs/cache-configuration-reference.md

go run ./hack/charts -registration example/controller-registration.yaml
