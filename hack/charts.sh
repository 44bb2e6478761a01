#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Packs the Helm charts into bin/charts, and pushes them to REGISTRY, below
# /charts, if that is set; INSECURE=true pushes by plain HTTP, VERSION names another
# version than the file of that name. Arguments are those of hack/charts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

arguments=(-version "${VERSION:-$(cat VERSION)}")
if [ -n "${REGISTRY:-}" ]; then
  arguments+=(-registry "$REGISTRY" "-insecure=${INSECURE:-false}")
fi
env -u GOOS -u GOARCH go run ./hack/charts "${arguments[@]}" "$@"
