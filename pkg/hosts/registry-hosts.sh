#!/bin/sh
# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Keeps containerd's hosts.toml of each upstream equal to the header and the
# fragments of those hosts that answer, so that a dead cache or mirror costs a
# pull nothing. Without a host that answers there is no hosts.toml, and
# containerd goes to the upstream directly.
#
#   sh registry-hosts.sh            runs until it is told to stop
#   sh registry-hosts.sh withdraw   only removes what an earlier run left
#
# Only sh, coreutils and curl (7.75 or newer) can be relied on; ss is used if it
# is there. All that is read from files and answers is data: it is never evaluated
# and never split by the shell. As this runs on every node for ever, programs are
# started only where builtins do not do, and files are read only if they may have
# changed: some shells read them byte by byte. The unit is restarted when a
# fragment changes.

set -u
umask 022
LC_ALL=C
export LC_ALL

sources=${REGISTRY_HOSTS_DIR:-/var/lib/registry-hosts}
certs=${CERTS_DIR:-/etc/containerd/certs.d}
# While this file is there, nothing is published: an operator's switch for one
# node.
off=${REGISTRY_HOSTS_OFF:-/etc/containerd/registry-hosts-off}
# Seconds from the end of one round to the start of the next: if all hosts
# answered, if one that did before has failed once, and if one does not answer.
# With max-time below, a host that is lost is withdrawn within 15 s.
interval=${REGISTRY_HOSTS_INTERVAL:-10}
confirm_interval=${REGISTRY_HOSTS_CONFIRM_INTERVAL:-1}
retry_interval=${REGISTRY_HOSTS_RETRY_INTERVAL:-2}

# The first line of each hosts.toml of ours. No other hosts.toml is touched.
marker='# Written by registry-hosts.service, which replaces and removes this file.'
temporary=.hosts.toml.registry-hosts

# Files are read anew after that many rounds, even if nothing says that they
# have changed.
rounds_between_reads=${REGISTRY_HOSTS_ROUNDS:-6}
# The script ends if it could not write for that many rounds in a row: its mounts
# may be older than the directories, and it gets new ones.
rounds_without_writing=5

nl='
'
# Sets of lines, each line between two line feeds. A host is known by its
# fragment's path and first line: if what is to be probed changes, it is a new
# host, of which nothing is known.
hosts=$nl     # to be probed
live=$nl      # in hosts.toml
failed=$nl    # did not answer the last probe
published=$nl # upstreams that have a hosts.toml of ours
lost=$nl      # caches that cannot be connected to, with a dot for each round
alien=$nl     # upstreams whose hosts.toml is not ours
bundles=$nl   # CA bundles of hosts
notices=$nl
config=       # of curl, which probes all hosts
names=        # of all fragments that have been read
applied=      # what live was when hosts.toml files were last brought up to date
rounds=0      # until files are read anew
failures=0    # rounds in a row in which a file could not be written or removed
failure=      # set if that is so in this round
pause=        # until the next round
sleeper=

log() {
  printf '%s\n' "$*"
}

# log_once TEXT logs what would otherwise be said in every round.
log_once() {
  case $notices in
    *"$nl$1$nl"*) ;;
    *)
      notices=$notices$1$nl
      log "$1"
      ;;
  esac
}

# retry_soon makes the pause until the next round short, unless it is already.
retry_soon() {
  if [ "$pause" = "$interval" ]; then
    pause=$retry_interval
  fi
}

# slurp FILE sets content to the content of a file.
slurp() {
  content=
  line=
  [ -f "$1" ] || return 1
  while IFS= read -r line; do
    content=$content$line$nl
    line=
  done 2>/dev/null <"$1" || return 1
  content=$content$line
}

# is_ours FILE tells whether a hosts.toml is ours.
is_ours() {
  first=
  [ -f "$1" ] && [ ! -L "$1" ] && IFS= read -r first 2>/dev/null <"$1" && [ "$first" = "$marker" ]
}

# withdraw UPSTREAM removes what we have put into containerd's directory of an
# upstream, and the directory if nothing else is in it.
withdraw() {
  [ -d "$certs/$1" ] || return 0
  if is_ours "$certs/$1/hosts.toml"; then
    if rm -f -- "$certs/$1/hosts.toml"; then
      log "$1: removed hosts.toml, pulls are direct"
    else
      applied=
      failure=yes
      retry_soon
    fi
  fi
  if [ -e "$certs/$1/$temporary" ]; then
    rm -f -- "$certs/$1/$temporary"
  fi
  if [ ! -e "$certs/$1/hosts.toml" ]; then
    rmdir -- "$certs/$1" 2>/dev/null || :
  fi
}

# withdraw_others removes what is ours of upstreams that are not configured.
withdraw_others() {
  for file in "$certs"/*/hosts.toml; do
    directory=${file%/*}
    upstream=${directory##*/}
    if [ ! -e "$sources/$upstream/00-server.toml" ] && is_ours "$file"; then
      withdraw "$upstream"
    fi
  done
}

# withdraw_all removes all that is ours, also what killed runs left.
withdraw_all() {
  for file in "$certs"/*/hosts.toml "$certs"/*/"$temporary" "$sources"/*/00-server.toml; do
    [ -f "$file" ] || continue
    directory=${file%/*}
    withdraw "${directory##*/}"
  done
}

# publish UPSTREAM CONTENT makes hosts.toml have that content. containerd sees
# the old file, none, or the new one, and never a part of it.
publish() {
  target=$certs/$1/hosts.toml
  if [ -e "$target" ] || [ -L "$target" ]; then
    if ! is_ours "$target"; then
      case $was_alien in
        *"$nl$1$nl"*) ;;
        *) log "$1: left alone, as somebody else has written $target" ;;
      esac
      alien=$alien$1$nl
      return 0
    fi
    if slurp "$target" && [ "$content" = "$2" ]; then
      published=$published$1$nl
      return 0
    fi
  fi
  # The sync is for a power failure: an empty file would not have our marker.
  if [ -d "$certs/$1" ] || mkdir -p -- "$certs/$1" &&
    printf '%s' "$2" >"$certs/$1/$temporary" &&
    { sync -- "$certs/$1/$temporary" 2>/dev/null || :; } &&
    mv -f -- "$certs/$1/$temporary" "$target"; then
    published=$published$1$nl
    log "$1: wrote hosts.toml"
  else
    log_once "$1: cannot write hosts.toml"
    withdraw "$1"
    applied=
    failure=yes
    retry_soon
  fi
}

# all TEST LINES tells whether a test holds for each line of a set.
all() {
  rest=${2#"$nl"}
  while [ -n "$rest" ]; do
    "$1" "${rest%%"$nl"*}" || return 1
    rest=${rest#*"$nl"}
  done
}

is_readable() {
  [ -r "$1" ]
}

is_published() {
  is_ours "$certs/$1/hosts.toml"
}

# collect brings hosts, bundles and the configuration of curl up to date.
collect() {
  known=$names
  names=
  for fragment in "$sources"/*/00-server.toml "$sources"/*/10-cache.toml "$sources"/*/20-mirror-*.toml; do
    names=$names$fragment$nl
  done
  if [ -e "$off" ]; then
    log_once "switched off by $off"
    names=
    applied=
    hosts=$nl
    config=
    return 0
  fi
  rounds=$((rounds - 1))
  if [ "$rounds" -gt 0 ] && [ "$names" = "$known" ] && all is_readable "$bundles"; then
    return 0
  fi
  rounds=$rounds_between_reads
  applied=
  hosts=$nl
  bundles=$nl
  config=
  number=0
  for fragment in "$sources"/*/10-cache.toml "$sources"/*/20-mirror-*.toml; do
    collect_host
  done
}

# collect_host adds the host of a fragment.
collect_host() {
  probe=
  [ -f "$fragment" ] || return 0
  IFS= read -r probe 2>/dev/null <"$fragment" || return 0
  words=${probe#'# probe: '}
  [ "$words" != "$probe" ] || return 0
  # A mirror may be far away, and have a name that is to be looked up.
  case $words in
    any' '*) connect_timeout=1.9 max_time=1.9 ;;
    *) connect_timeout=1 max_time=1.5 ;;
  esac
  words=${words#* }
  url=${words%% *}
  ca=${words#* }
  if [ "$ca" = - ]; then
    cacert=
  elif [ -r "$ca" ]; then
    # Besides what the node trusts, which is there on all that Gardener runs on: as
    # containerd does.
    cacert="cacert = \"$ca\"${nl}capath = \"/etc/ssl/certs\"$nl"
    bundles=$bundles$ca$nl
  else
    # containerd fails all pulls from an upstream of which it cannot read a CA,
    # so there is no second chance.
    log_once "$fragment: left out until $ca can be read"
    rounds=0
    retry_soon
    return 0
  fi
  hosts=$hosts$fragment$nl$probe$nl
  config="${config}next
url = \"$url\"
${cacert}globoff
silent
noproxy = \"*\"
proto = \"=http,https\"
connect-timeout = $connect_timeout
max-time = $max_time
user-agent = \"registry-hosts\"
output = \"/dev/null\"
write-out = \"$number %{http_code} %{exitcode} %{num_connects} %{content_type} %{errormsg}\\n\"
"
  number=$((number + 1))
}

# ask sets answers to a line for each host: its number, the HTTP status, curl's
# exit code, 1 if there was a connection, the content type, curl's message.
ask() {
  answers=$nl
  [ -n "$config" ] || return 0
  if ! command -v curl >/dev/null; then
    log_once 'there is no curl: all pulls are direct'
    return 0
  fi
  answers=$nl$(
    curl -q --silent --parallel --parallel-immediate --parallel-max 300 --config - 2>/dev/null <<END
$config
END
  )$nl
  if [ "$answers" = "$nl$nl" ]; then
    log_once 'curl gives no answers (is it older than 7.75?): all pulls are direct'
  fi
}

# judge brings live and failed up to date with the answers. A host is live from
# its first answer on until it has not answered twice in a row. A cache has to
# answer as registries do: containerd fails all pulls if it gets a web page.
judge() {
  was_live=$live
  was_failed=$failed
  live=$nl
  failed=$nl
  was_lost=$lost
  lost=$nl
  number=0
  rest=${hosts#"$nl"}
  while [ -n "$rest" ]; do
    fragment=${rest%%"$nl"*}
    rest=${rest#*"$nl"}
    probe=${rest%%"$nl"*}
    rest=${rest#*"$nl"}
    judge_host
    number=$((number + 1))
  done
}

# judge_host judges the host of a fragment and a probe, which has a number.
judge_host() {
  host="$fragment $probe"
  answer=${answers#*"$nl$number "}
  [ "$answer" != "$answers" ] || answer='000 - no answer from curl'
  answer=${answer%%"$nl"*}
  expected=${probe#'# probe: '}
  url=${expected#* }
  url=${url%% *}
  case ${expected%% *}:$answer in
    '200:200 0 '?' application/json'* | any:[1-9][0-9][0-9]' 0 '*)
      live=$live$host$nl
      case $was_live in
        *"$nl$host$nl"*) ;;
        *) log "$url: answers" ;;
      esac
      return 0
      ;;
  esac
  failed=$failed$host$nl
  retry_soon
  case ${expected%% *}:$answer in
    '200:000 28 0 '*)
      dots=${was_lost#*"$nl$url "}
      [ "$dots" != "$was_lost" ] || dots=
      dots=${dots%%"$nl"*}
      case $dots in
        .........) ;; # there is nothing left to end
        *) dots=$dots. ;;
      esac
      lost="$lost$url $dots$nl"
      ;;
  esac
  case $was_failed in
    *"$nl$host$nl"*)
      case $was_live in
        *"$nl$host$nl"*) log "$url: still does not answer, withdrawn" ;;
      esac
      return 0
      ;;
  esac
  log "$url: does not answer as it should: $answer"
  case $was_live in
    *"$nl$host$nl"*)
      live=$live$host$nl
      pause=$confirm_interval
      ;;
  esac
}

# apply makes the hosts.toml of each configured upstream hold its live hosts.
apply() {
  if [ "$live" = "$applied" ] && [ "$alien" = "$nl" ] && all is_published "$published"; then
    return 0
  fi
  applied=$live
  published=$nl
  was_alien=$alien
  alien=$nl
  for header in "$sources"/*/00-server.toml; do
    [ -f "$header" ] || continue
    apply_upstream
  done
}

# apply_upstream does it for the upstream of a header.
apply_upstream() {
  directory=${header%/*}
  upstream=${directory##*/}
  wanted=
  for fragment in "$directory"/10-cache.toml "$directory"/20-mirror-*.toml; do
    case $live in
      *"$nl$fragment "*) slurp "$fragment" || content= ;;
      *) continue ;;
    esac
    case $live in
      *"$nl$fragment ${content%%"$nl"*}$nl"*) wanted=$wanted$content ;;
      *)
        # It has changed since it was read.
        rounds=0
        retry_soon
        ;;
    esac
  done
  if [ -n "$wanted" ] && slurp "$header" && [ "${content%%"$nl"*}" = "$marker" ]; then
    publish "$upstream" "$content$wanted"
  else
    withdraw "$upstream"
  fi
}

# hang_up ends connections to a cache that is lost, with its node for example:
# containerd waits for minutes for what it has asked for there. It does so when for
# many rounds there was no connection, so that TCP has had its chance, and needs ss
# and a kernel that can do it. A cache that is only slow still has connections.
hang_up() {
  case $1 in
    *' ........') ;;
    *) return 0 ;;
  esac
  set -- "${1%% *}"
  authority=${1#*://}
  authority=${authority%%/*}
  case $authority in
    '['*']:'*) ;;
    *[!0-9.:]*) return 0 ;; # a name
    *:*) ;;
    *) return 0 ;;
  esac
  command -v ss >/dev/null || return 0
  ended=$(ss --no-header --numeric --tcp --kill dst "$authority" 2>/dev/null) || return 0
  if [ -n "$ended" ]; then
    log "$1: ended connections to it"
  fi
}

stop() {
  trap '' TERM INT HUP
  [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null
  withdraw_all
  exit 0
}

case ${1:-} in
  '') ;;
  withdraw)
    withdraw_all
    exit 0
    ;;
  *)
    log "unknown argument: $1"
    exit 2
    ;;
esac

trap stop TERM INT HUP
# Whatever is there says nothing about now: the node may have been without power.
withdraw_all
while :; do
  pause=$interval
  failure=
  withdraw_others
  collect
  ask
  judge
  apply
  all hang_up "$lost"
  if [ -z "$failure" ]; then
    failures=0
  elif [ "$failures" -lt "$rounds_without_writing" ]; then
    failures=$((failures + 1))
  else
    exit 1
  fi
  # In the background, as a trap waits for a program in the foreground.
  sleep "$pause" &
  sleeper=$!
  # Without pauses it would take a whole core: systemd has patience.
  wait "$sleeper" || exit 1
  sleeper=
done
