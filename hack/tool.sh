#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Prints the path of each named tool or test binary, after building those that
# the cache folder does not have yet. All of them are pinned in the modules
# below hack/tools; a binary is built once for each set of pinned versions and
# each Go version, and is shared by all clones on the machine.
set -euo pipefail

tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tools"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/gardener-extension-registry-cache/bin"

# module_of prints the module folder below hack/tools, the package and the
# linker flags of a binary, one to a line.
module_of() {
  case "$1" in
    kube-apiserver) printf '%s\n' kubernetes "k8s.io/kubernetes/cmd/$1" "$(kubernetes_version_flags)" ;;
    etcd) printf '%s\n' etcd go.etcd.io/etcd/server/v3 '' ;;
    golangci-lint) printf '%s\n' golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint '' ;;
    controller-gen) printf '%s\n' . sigs.k8s.io/controller-tools/cmd/controller-gen '' ;;
    defaulter-gen) printf '%s\n' . k8s.io/code-generator/cmd/defaulter-gen '' ;;
    crd-ref-docs) printf '%s\n' . github.com/elastic/crd-ref-docs '' ;;
    *)
      echo "hack/tool.sh: no tool is named '$1'" >&2
      exit 2
      ;;
  esac
}

# kubernetes_version_flags stamps the pinned version into Kubernetes' binaries,
# which otherwise call themselves v0.0.0-master.
kubernetes_version_flags() {
  local version minor
  version="$(sed -n 's/^require k8s.io\/kubernetes //p' "$tools/kubernetes/go.mod")"
  minor="${version#v1.}"
  local package=k8s.io/component-base/version
  echo "-X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
}

build() {
  local name="$1" module package flags key binary started
  { read -r module && read -r package && read -r flags; } < <(module_of "$name") || [ -n "${package:-}" ]
  key="$(cd "$tools/$module" && { go env GOVERSION; echo "$flags"; cat go.mod go.sum; } | sha256sum | cut -c1-12)"
  binary="$cache/$key/$name"
  if [ ! -x "$binary" ]; then
    mkdir -p "$cache/$key"
    started=$SECONDS
    echo "building $name ..." >&2
    (cd "$tools/$module" && CGO_ENABLED=0 GOFLAGS='' go build -trimpath -buildvcs=false -ldflags "-s -w $flags" -o "$binary.$$" "$package")
    mv "$binary.$$" "$binary" # concurrent builds each replace it as a whole
    echo "built $name in $((SECONDS - started)) s" >&2
  fi
  echo "$binary"
}

for name in "$@"; do
  module_of "$name" >/dev/null
  build "$name"
done
