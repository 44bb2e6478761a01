#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Pushes the images and the charts of a release to REGISTRY, of which the charts run
# the images by digest; INSECURE=true pushes by plain HTTP, VERSION names another
# version than the file of that name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${REGISTRY:?names the registry to push to}"
hack/images.sh
hack/charts.sh -images bin/images/images.yaml
