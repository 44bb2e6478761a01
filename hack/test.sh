#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Runs the tests: `hack/test.sh unit`, `hack/test.sh integration` or
# `hack/test.sh e2e`, with further arguments for `go test`; or the demo:
# `hack/test.sh demo`. `hack/test.sh env integration` and `hack/test.sh env e2e`
# print what these tests need in the environment, for a debugger or an editor.
set -euo pipefail
shopt -s inherit_errexit
unset GOOS GOARCH # all runs on this machine
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What the integration tests run, and what the test cluster runs.
integration_binaries=(kube-apiserver kube-controller-manager kubectl etcd gardener-apiserver gardener-resource-manager prometheus promtool)
cluster_binaries=(
  kube-apiserver kube-controller-manager kubectl etcd gardener-resource-manager kube-scheduler kubelet kube-proxy gardener-node-agent
  containerd containerd-shim-runc-v2 ctr runc bridge host-local loopback portmap
)

# assets prints the variables that name the given test binaries.
assets() {
  local name path
  for name in "$@"; do
    path="$(hack/tool.sh "$name")"
    echo "TEST_ASSET_$(tr 'a-z.-' 'A-Z__' <<<"$name")=$path"
  done
}

# environment prints the variables of a kind of tests, after building what they
# name.
environment() {
  case "${1:-}" in
    integration) assets "${integration_binaries[@]}" conformance ;;
    demo)
      hack/require.sh ip:iproute2 nsenter:util-linux systemctl:systemd iptables nft:nftables conntrack curl \
        cc:gcc /usr/include/stdlib.h:libc6-dev pkg-config /usr/include/seccomp.h:libseccomp-dev
      assets "${cluster_binaries[@]}"
      echo "building the extension and its images ..." >&2
      hack/build.sh gardener-extension-registry-cache >&2
      CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o bin/pause ./test/cluster/pause
      hack/images.sh -images registry-cache -platforms "linux/$(go env GOARCH)" -output bin/test-images >&2
      echo "TEST_ASSET_GARDENER_EXTENSION_REGISTRY_CACHE=$PWD/bin/gardener-extension-registry-cache"
      echo "TEST_ASSET_PAUSE=$PWD/bin/pause"
      echo "TEST_ASSET_IMAGES=$PWD/bin/test-images"
      ;;
    e2e)
      hack/require.sh jq openssl # for commands of the documentation
      environment demo
      assets containerd-1.7 helm gardener-apiserver
      hack/build.sh registry-cache kubectl-registry_cache >&2
      echo "TEST_ASSET_REGISTRY_CACHE=$PWD/bin/registry-cache"
      echo "TEST_ASSET_KUBECTL_REGISTRY_CACHE=$PWD/bin/kubectl-registry_cache"
      ;;
    *)
      echo "usage: hack/test.sh env integration|e2e" >&2
      return 2
      ;;
  esac
}

# with KIND COMMAND... runs a command with the variables of a kind of tests.
with() {
  local variables
  variables="$(environment "$1")"
  mapfile -t variables <<<"$variables"
  env "${variables[@]}" "${@:2}"
}

# unit looks for data races where that is possible: the race detector needs a C
# compiler.
unit() {
  local packages race=()
  hack/require.sh curl dash shellcheck systemd-analyze:systemd # for the script and the unit that run on nodes
  if [ "$(go env CGO_ENABLED)" = 1 ] && command -v "$(go env CC)" >/dev/null; then
    race=(-race)
  fi
  packages="$(go list ./... | grep -vE '/test/(integration|conformance|monitoring|e2e|node|demo|sandbox|documentation)')"
  mapfile -t packages <<<"$packages"
  export GOMEGA_DEFAULT_EVENTUALLY_TIMEOUT=20s # 1 s is not much on a busy machine
  go test "${race[@]}" -timeout 20m "$@" "${packages[@]}"
  (cd test/bench && go test "${race[@]}" "$@" ./...)
}

# integration runs two packages at a time, each with control planes of its own, and
# then the largest one in processes that have control planes of their own and share
# its specs: they wait most of the time. go test may not take an earlier result: it
# does not know of the binaries that the tests build and run. With arguments go test
# runs all.
integration() {
  local packages=(./test/integration/... ./test/conformance ./test/monitoring) others
  hack/require.sh curl # for the script that runs on nodes
  if [ $# -gt 0 ]; then
    with integration go test -count 1 -p 2 -timeout 60m "$@" "${packages[@]}"
    return
  fi
  others="$(go list "${packages[@]}" | grep -v /registrycache$)"
  mapfile -t others <<<"$others"
  with integration go test -count 1 -p 2 -timeout 30m "${others[@]}"
  with integration go tool ginkgo -procs 3 -timeout 60m -poll-progress-after 5m ./test/integration/registrycache
}

# check_machine says whether this machine can run the test cluster: its exit code
# is 3 if it cannot.
check_machine() {
  go build -o bin/check ./test/sandbox/check && bin/check
}

# e2e runs the tests on the real cluster, two packages at a time: each has a cluster of
# its own and waits most of the time. Where that cannot be, nothing is built
# for it, and the tests say by name that they are skipped, or fail if
# REQUIRE_CLUSTER is set.
e2e() {
  local code=0 command=(go test -count 1 -p 2 -v -timeout 30m "$@" ./test/sandbox ./test/node ./test/demo ./test/e2e ./test/documentation)
  check_machine || code=$?
  case "$code" in
    0) with e2e "${command[@]}" ;;
    3) "${command[@]}" ;;
    *) return "$code" ;;
  esac
}

demo() {
  local variables
  check_machine
  variables="$(environment demo)"
  mapfile -t variables <<<"$variables"
  echo "building the demo ..." >&2
  go build -o bin/demo ./test/demo
  # In place of this shell, which would not outlive Ctrl-C.
  exec env "${variables[@]}" bin/demo
}

case "${1:-}" in
  unit | integration | e2e | demo) "$1" "${@:2}" ;;
  env) environment "${2:-}" ;;
  *)
    echo "usage: hack/test.sh unit|integration|e2e [arguments of go test], hack/test.sh demo or hack/test.sh env integration|e2e" >&2
    exit 2
    ;;
esac
