#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Builds the product's binaries into bin/: static, without paths of this machine,
# and stamped with the version. GOOS and GOARCH choose another platform.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="$(cat VERSION)"
flags="-s -w -X main.version=$version"

for name in gardener-extension-registry-cache registry-cache; do
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" -o "bin/$name" "./cmd/$name"
  echo "bin/$name $version"
done
