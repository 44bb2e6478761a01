#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Pushes the images and the charts of a release to REGISTRY; INSECURE=true pushes by
# plain HTTP, VERSION names another version than the file of that name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${REGISTRY:?names the registry to push to}"
export VERSION="${VERSION:-$(cat VERSION)}"
hack/images.sh
env -u GOOS -u GOARCH go run ./hack/release -version "$VERSION" -registry "$REGISTRY" "-insecure=${INSECURE:-false}"
