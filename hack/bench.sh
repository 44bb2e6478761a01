#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Compares our cache with a stock distribution registry, and with nginx: prints
# a table in Markdown, and writes it to test/bench/RESULTS.md. An argument is a
# regular expression of the names of the experiments to run; the file is not
# written then. BENCH_CACHE=FILE measures another build of our cache.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PATH="$PATH:/usr/sbin" # nginx
# Debian starts nginx when it installs it: that is not what it is here for.
if ! command -v nginx >/dev/null; then
  hack/require.sh nginx
  if [ -d /run/systemd/system ]; then
    systemctl disable --now --quiet nginx
  fi
fi

cache="${BENCH_CACHE:-bin/registry-cache}"
version="the build that BENCH_CACHE names"
if [ -z "${BENCH_CACHE:-}" ]; then
  env -u GOOS -u GOARCH -u OUTPUT hack/build.sh registry-cache >&2
  version="$(cat VERSION), commit $(git rev-parse --short HEAD)"
  if [ -n "$(git status --porcelain --untracked-files=no -- cmd pkg go.mod go.sum)" ]; then
    version+=" with changes"
  fi
fi

echo "building the stock registry and the bench ..." >&2
(
  cd test/bench
  # As hack/build.sh builds ours.
  export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off GOOS='' GOARCH='' GOEXPERIMENT='' GOAMD64=v1 GOARM64=v8.0
  go build -trimpath -ldflags "-s -w" -o ../../bin/stock-registry github.com/distribution/distribution/v3/cmd/registry
  go build -trimpath -o ../../bin/bench .
)

# In place of this shell, which would not pass on signals.
exec bin/bench -cache "$cache" -cache-version "$version" -stock bin/stock-registry -nginx "$(command -v nginx)" \
  -results test/bench/RESULTS.md "$@"
