#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Prints the path of each named tool or test binary, after building those that
# the cache folder does not have yet. All of them are pinned in the modules
# below hack/tools; a binary is built once for each set of pinned versions and
# each Go version, and is shared by all clones on the machine.
set -euo pipefail
shopt -s inherit_errexit

tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tools"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gardener-extension-registry-cache/bin"

# What the binaries are built with must not depend on what the caller's shell
# has set for the product's own build.
export CGO_ENABLED=0 GOFLAGS='' GOWORK=off GOOS='' GOARCH=''

# What an interrupted build leaves.
trap 'rm -f "$cache"/*/*.$$' EXIT

# build NAME FOLDER PACKAGE [LINKER FLAGS] [TAGS] prints the path of the binary
# of a package that the module in the folder below hack/tools pins.
build() {
  local name="$1" module="$tools/$2" package="$3" flags="${4:-}" tags="${5:-}" key binary started=$SECONDS
  key="$(cd "$module" && { go env GOVERSION GOARCH; echo "$CGO_ENABLED $flags $tags"; cat go.mod go.sum; } | sha256sum | cut -c1-12)"
  binary="$cache/$key/$name"
  if [ ! -x "$binary" ]; then
    mkdir -p "$cache/$key"
    echo "building $name ..." >&2
    (cd "$module" && go build -trimpath -buildvcs=false -tags "$tags" -ldflags "-s -w $flags" -o "$binary.$$" "$package")
    mv "$binary.$$" "$binary" # concurrent builds each replace it as a whole
    echo "built $name in $((SECONDS - started)) s" >&2
  fi
  echo "$binary"
}

# version_flags FOLDER MODULE prints the linker flags that stamp the pinned
# version of a module into its binaries, which otherwise call themselves
# v0.0.0-master.
version_flags() {
  local version minor package=k8s.io/component-base/version
  version="$(cd "$tools/$1" && go list -m -f '{{.Version}}' "$2")"
  minor="${version#v1.}"
  echo "-X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
}

# tool NAME knows where each binary comes from.
tool() {
  local name="$1" flags
  case "$name" in
    kube-apiserver | kube-controller-manager | kube-proxy | kube-scheduler | kubectl | kubelet)
      flags="$(version_flags kubernetes k8s.io/kubernetes)"
      build "$name" kubernetes "k8s.io/kubernetes/cmd/$name" "$flags"
      ;;
    gardener-apiserver | gardener-node-agent | gardener-resource-manager)
      flags="$(version_flags gardener github.com/gardener/gardener)"
      build "$name" gardener "github.com/gardener/gardener/cmd/$name" "$flags"
      ;;
    conformance) build "$name" conformance "github.com/opencontainers/distribution-spec/$name" ;;
    prometheus | promtool) build "$name" prometheus "github.com/prometheus/prometheus/cmd/$name" ;;
    etcd) build "$name" etcd go.etcd.io/etcd/server/v3 ;;
    containerd | containerd-shim-runc-v2 | ctr) build "$name" containerd "github.com/containerd/containerd/v2/cmd/$name" ;;
    containerd-1.7) build "$name" "$name" github.com/containerd/containerd/cmd/containerd ;;
    # seccomp, which the pods of the caches ask for, is a C library of Debian's.
    runc) CGO_ENABLED=1 build "$name" runc github.com/opencontainers/runc "" seccomp ;;
    host-local) build "$name" cni "github.com/containernetworking/plugins/plugins/ipam/$name" ;;
    bridge | loopback) build "$name" cni "github.com/containernetworking/plugins/plugins/main/$name" ;;
    portmap) build "$name" cni "github.com/containernetworking/plugins/plugins/meta/$name" ;;
    helm) build "$name" helm "helm.sh/helm/v4/cmd/$name" ;;
    golangci-lint) build "$name" golangci-lint "github.com/golangci/golangci-lint/v2/cmd/$name" ;;
    controller-gen) build "$name" . "sigs.k8s.io/controller-tools/cmd/$name" ;;
    defaulter-gen) build "$name" . "k8s.io/code-generator/cmd/$name" ;;
    crd-ref-docs) build "$name" . "github.com/elastic/$name" ;;
    *)
      echo "hack/tool.sh: no tool is named '$name'" >&2
      return 2
      ;;
  esac
}

for name in "$@"; do
  tool "$name"
done
