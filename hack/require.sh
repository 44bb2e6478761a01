#!/usr/bin/env bash
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Makes sure of commands or files, each given as WHAT:PACKAGE, or as WHAT alone
# for a command whose Debian package has the same name: what is missing is
# installed where that is possible.
set -euo pipefail

missing=()
for item in "$@"; do
  what="${item%%:*}"
  if ! command -v "$what" >/dev/null && [ ! -e "$what" ]; then
    missing+=("${item##*:}")
  fi
done
if [ ${#missing[@]} -eq 0 ]; then
  exit
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing, please install: ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]} ..." >&2
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}"; } >&2; then
  echo "missing, please install: ${missing[*]}" >&2
  exit 1
fi
