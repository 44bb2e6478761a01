#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Packs the kubectl plugin for all platforms into bin/plugin, with the manifest by
# which krew installs it. PLUGIN_URL is where the archives will be downloaded from,
# and VERSION names another version than the file of that name. Arguments are those
# of hack/plugin.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The program runs here, whatever platforms the plugin is for.
env -u GOOS -u GOARCH go run ./hack/plugin -version "${VERSION:-$(cat VERSION)}" -url "${PLUGIN_URL:-}" "$@"
