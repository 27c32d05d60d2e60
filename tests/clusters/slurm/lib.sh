# What up, down, enter, node, init and restd share: messages, the record of processes, waiting, namespaces. Sourced, never run.
# shellcheck shell=bash

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STATE=${TESTSLURM_STATE:-/var/lib/slurm-cluster}
ENVFILE=$STATE/etc/cluster.env

say()  { printf '%s\n' "slurm-cluster: $*" >&2; }
die()  { say "error: $*"; exit 1; }

need_root() { [ "$(id -u)" -eq 0 ] || die "run this as root (it makes namespaces and starts daemons as other users)"; }

# --- recorded processes: "name pid starttime" lines in $STATE/run/pids ---
# The start time (field 22 of /proc/PID/stat) tells a recorded process from another that got its number later.
start_time() { # PID
  local s
  s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  s=${s##*) }
  # shellcheck disable=SC2086
  set -- $s
  printf '%s' "${20}"
}
record() { # NAME PID
  local t
  t=$(start_time "$2") || { say "process $1 ($2) ended at once"; return 1; }
  forget "$1"
  printf '%s %s %s\n' "$1" "$2" "$t" >>"$STATE/run/pids"
}
forget() { # NAME
  [ -f "$STATE/run/pids" ] || return 0
  local keep
  keep=$(awk -v n="$1" '$1 != n' "$STATE/run/pids")
  printf '%s' "${keep:+$keep$'\n'}" >"$STATE/run/pids"
}
pid_of() { # NAME -> PID if the recorded process still lives
  local n p t
  [ -f "$STATE/run/pids" ] || return 1
  while read -r n p t; do
    if [ "$n" = "$1" ] && [ "$(start_time "$p" || true)" = "$t" ]; then
      printf '%s' "$p"
      return 0
    fi
  done <"$STATE/run/pids"
  return 1
}
end_recorded() { # NAME SIGNAL SECONDS: signal it, wait, then KILL
  local p i
  p=$(pid_of "$1") || { forget "$1"; return 0; }
  kill "-$2" "$p" 2>/dev/null || true
  for ((i = 0; i < $3 * 20; i++)); do
    pid_of "$1" >/dev/null || break
    sleep 0.05
  done
  if p=$(pid_of "$1"); then
    kill -KILL "$p" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do
      pid_of "$1" >/dev/null || break
      sleep 0.05
    done
  fi
  forget "$1"
}

load_env() { # the options that the running cluster was made with
  [ -f "$ENVFILE" ] || die "no cluster in $STATE (run up first)"
  # shellcheck disable=SC1090
  . "$ENVFILE"
}

node_names() { local i; for ((i = 1; i <= NODES; i++)); do printf '%s%d ' "$PREFIX" "$i"; done; }
node_index() { # NAME -> 1..NODES
  local i=${1#"$PREFIX"}
  case $i in '' | *[!0-9]*) return 1 ;; esac
  [ "$i" -ge 1 ] && [ "$i" -le "$NODES" ] || return 1
  printf '%s' "$i"
}
node_addr() { printf '%s.%d' "$SUBNET" $((10 + $1)); }

# The topmost folder on the way to a path that ordinary users cannot enter; nothing if there is none.
closed_above() { # PATH
  local part at=''
  local -a parts
  IFS=/ read -ra parts <<<"${1#/}"
  for part in "${parts[@]}"; do
    at+=/$part
    [ -d "$at" ] || return 0
    [ $((0$(stat -c %a "$at") & 1)) -eq 1 ] || { printf '%s' "$at"; return 0; }
  done
}

wait_for() { # SECONDS COMMAND...
  local end=$(($(date +%s) + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || return 1
    sleep 0.1
  done
}

# The first child of a process: with `unshare --fork` that is PID 1 of the new PID namespace.
child_of() { # PID
  local c i
  for ((i = 0; i < 200; i++)); do
    c=$(cat "/proc/$1/task/$1/children" 2>/dev/null || true)
    if [ -n "$c" ]; then
      printf '%s' "${c%% *}"
      return 0
    fi
    [ -d "/proc/$1" ] || return 1
    sleep 0.02
  done
  return 1
}

# Start init (this folder) as PID 1 of new namespaces, record it as ns:NAME, and let it wait on a FIFO for its go.
spawn_ns() { # NAME ROLE UNSHARE-OPTIONS...
  local name=$1 role=$2 up init
  shift 2
  rm -f "$STATE/run/$name.go" "$STATE/run/$name.ready"
  mkfifo "$STATE/run/$name.go"
  setsid unshare "$@" --pid --fork --kill-child --mount --mount-proc --propagation private \
    bash "$HERE/init" "$role" "$name" </dev/null >>"$STATE/log/init.$name.log" 2>&1 9>&- &
  up=$!
  init=$(child_of "$up") || die "could not make namespaces for $name: $(tail -3 "$STATE/log/init.$name.log")"
  record "unshare:$name" "$up"
  record "ns:$name" "$init"
}
ns_go() { # NAME
  printf 'go\n' >"$STATE/run/$1.go"
  rm -f "$STATE/run/$1.go"
}

make_cgroups() { # NAME: this host's share of each cgroup v1 hierarchy that Slurm uses
  local c d
  for c in cpuset memory freezer devices cpuacct; do
    [ -d "/sys/fs/cgroup/$c" ] || die "no cgroup v1 hierarchy '$c' on this machine"
    for d in "/sys/fs/cgroup/$c/$CGNAME" "/sys/fs/cgroup/$c/$CGNAME/$1"; do
      mkdir -p "$d"
      [ "$c" != cpuset ] || { cat "$d/../cpuset.cpus" >"$d/cpuset.cpus" && cat "$d/../cpuset.mems" >"$d/cpuset.mems"; }
    done
  done
}

start_node() { # NAME (namespace mode)
  local name=$1 i ctl ns addr
  i=$(node_index "$name") || die "no node $name"
  addr=$(node_addr "$i")
  ctl=$(pid_of ns:ctl) || die "the control namespace is gone"
  [ "$CGROUP" = none ] || make_cgroups "$name"
  spawn_ns "$name" node --net --uts --ipc
  ns=$(pid_of "ns:$name")
  # The link is made inside the control namespace: no interface of it is ever seen in the machine's own one.
  nsenter -t "$ctl" -n ip -batch - <<IP
link add v-$name type veth peer name eth0 netns $ns
link set v-$name master br0 up
IP
  nsenter -t "$ns" -n ip -batch - <<IP
link set lo up
addr add $addr/24 dev eth0
link set eth0 up
IP
  ns_go "$name"
}
