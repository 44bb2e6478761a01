#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Builds the named binaries of the product, or all of them, into bin/: static,
# without paths of this machine, and stamped with the version. GOOS and GOARCH
# choose another platform, OUTPUT another folder, VERSION another version.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

output="${OUTPUT:-bin}"
version="${VERSION:-$(cat VERSION)}"
names=("$@")
if [ $# -eq 0 ]; then
  names=(gardener-extension-registry-cache kubectl-registry_cache registry-cache)
fi

# Nothing of the caller's settings may be in the binaries.
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off GOEXPERIMENT='' GOAMD64=v1 GOARM64=v8.0

for name in "${names[@]}"; do
  go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$output/$name" "./cmd/$name"
  echo "$output/$name $version"
done
