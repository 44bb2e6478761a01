#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Checks everything that is not a test, changing nothing. All checks run, also
# after one has failed; the exit code tells whether any did. Arguments name the
# checks to run; without any, all of them run.
set -uo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# files prints the names of the repository's files, uncommitted ones included,
# that match the given patterns of git, or all of them.
files() {
  local name
  git ls-files --cached --others --exclude-standard -- "$@" | while read -r name; do
    if [ -f "$name" ]; then echo "$name"; fi
  done
}

scripts() {
  files '*.sh' .ci/run
}

check_headers() {
  local name missing=0
  while read -r name; do
    if ! head -10 "$name" | grep -q 'SPDX-FileCopyrightText: '; then
      echo "$name: no SPDX header"
      missing=1
    fi
  done < <(files '*.go' '*.sh' '*.yaml' '*.yml' Makefile .ci/run ':!:*/testdata/*')
  return "$missing"
}

# Names of folders that exist only on the machine of whoever wrote them.
check_paths() {
  ! git grep --untracked -nE '(^|[^A-Za-z0-9_.])/(work|farm|root|home/[a-z]+)/' -- . ':!*.sum'
}

check_scripts() {
  local name
  local -a all
  hack/require.sh shellcheck || return
  mapfile -t all < <(scripts)
  for name in "${all[@]}"; do
    bash -n "$name" || return
  done
  shellcheck "${all[@]}"
}

check_modules() {
  local module failed=0
  while read -r module; do
    (cd "$(dirname "$module")" && GOFLAGS='' go mod tidy -diff) || { echo "$module: not tidy"; failed=1; }
  done < <(files go.mod '*/go.mod')
  return "$failed"
}

# Generates in a copy, so that the working tree stays as it is.
check_generated() {
  local copy="$scratch/copy"
  mkdir -p "$copy" && files | tar --create --files-from - | tar --extract --directory "$copy" || return
  cp -r "$copy" "$scratch/before" && "$copy/hack/generate.sh" || return
  (cd "$scratch" && diff -ruN before copy) || { echo "generated files are stale: run 'make generate'"; return 1; }
}

check_vet() {
  go vet ./... && (cd test/bench && go vet ./...)
}

# A cache for each clone: its results name files by the folder of the clone that
# they were made in, which may be gone.
check_lint() {
  local lint
  lint="$(hack/tool.sh golangci-lint)" || return
  export GOLANGCI_LINT_CACHE
  GOLANGCI_LINT_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/golangci-lint/$(sha256sum <<<"$PWD" | cut -c1-12)"
  "$lint" run ./... && (cd test/bench && "$lint" run ./...)
}

selected=("$@")
if [ $# -eq 0 ]; then
  selected=(headers paths scripts modules generated vet lint)
fi
failed=()
for name in "${selected[@]}"; do
  started=$SECONDS
  echo "check $name ..."
  if "check_$name"; then
    echo "check $name: ok ($((SECONDS - started)) s)"
  else
    echo "check $name: FAILED ($((SECONDS - started)) s)"
    failed+=("$name")
  fi
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
