#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Runs the tests: `hack/test.sh unit` or `hack/test.sh integration`, with
# further arguments for `go test`. `hack/test.sh env` prints what the
# integration tests need in the environment, for a debugger or an editor.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# environment prints the variables that name the test binaries.
environment() {
  local name
  for name in kube-apiserver kube-controller-manager etcd gardener-resource-manager; do
    echo "TEST_ASSET_$(tr 'a-z-' 'A-Z_' <<<"$name")=$(hack/tool.sh "$name")"
  done
}

# unit looks for data races where that is possible: the race detector needs a C
# compiler.
unit() {
  local packages race=()
  hack/require.sh curl # for the script that runs on nodes
  if [ "$(go env CGO_ENABLED)" = 1 ] && command -v "$(go env CC)" >/dev/null; then
    race=(-race)
  fi
  packages="$(go list ./... | grep -v /test/integration)"
  mapfile -t packages <<<"$packages"
  go test "${race[@]}" -timeout 10m "$@" "${packages[@]}"
}

# integration runs the packages one after another, each with control planes of
# its own. go test may not take an earlier result: it does not know of the
# binaries that the tests build and run.
integration() {
  local variables
  hack/require.sh curl # for the script that runs on nodes
  variables="$(environment)"
  mapfile -t variables <<<"$variables"
  env "${variables[@]}" go test -count 1 -p 1 -timeout 20m "$@" ./test/integration/...
}

case "${1:-}" in
  unit) unit "${@:2}" ;;
  integration) integration "${@:2}" ;;
  env) environment ;;
  *)
    echo "usage: hack/test.sh unit|integration|env [arguments of go test]" >&2
    exit 2
    ;;
esac
