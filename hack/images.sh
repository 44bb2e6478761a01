#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Builds the container images of the product into bin/images, as OCI layouts with
# bills of materials, and pushes them to REGISTRY if that is set; INSECURE=true
# pushes by plain HTTP, PLATFORMS names other platforms. What was pushed stands in
# bin/images/images.yaml, an image vector with digests. Arguments are those of
# hack/images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

arguments=(-version "${VERSION:-$(cat VERSION)}")
# Sources without a history, or with changes that it does not know, have no revision.
if revision="$(git rev-parse HEAD 2>/dev/null)" && [ -z "$(git status --porcelain --untracked-files=no)" ]; then
  arguments+=(-revision "$revision")
fi
if [ -n "${PLATFORMS:-}" ]; then
  arguments+=(-platforms "$PLATFORMS")
fi
if [ -n "${REGISTRY:-}" ]; then
  arguments+=(-registry "$REGISTRY" "-insecure=${INSECURE:-false}")
fi
# The program runs here, whatever platform the images are for.
env -u GOOS -u GOARCH go run ./hack/images "${arguments[@]}" "$@"
