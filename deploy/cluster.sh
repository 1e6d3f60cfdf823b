#!/usr/bin/env bash
# Runs a cluster on loopback: N nodes and a document store, all in one folder.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: deploy/cluster.sh up N [DIR] [--no-docs]     start what is not running yet
       deploy/cluster.sh status [DIR]               what runs, as JSON
       deploy/cluster.sh down [DIR]                 end it; the data stays in DIR

DIR is ./.cluster unless given. Node i listens at PORT+i-1 (PORT is 7400 unless
set) and serves metrics at PORT+100+i-1; the document store listens at PORT-10.
Programs come from $BIN, else from ${CARGO_TARGET_DIR:-target}/debug.
`down` and `status` take an N too, and look at everything in DIR all the same.
TEXT
}

die() {
  echo "cluster.sh: $*" >&2
  exit 1
}

PORT="${PORT:-7400}"
BIN="${BIN:-${CARGO_TARGET_DIR:-target}/debug}"
# How long to wait for a node to answer, and for a process to end.
ANSWER_SECONDS="${ANSWER_SECONDS:-60}"
END_SECONDS="${END_SECONDS:-30}"

grpc_port() { echo $((PORT + $1 - 1)); }
metrics_port() { echo $((PORT + 100 + $1 - 1)); }
docs_port() { echo $((PORT - 10)); }

# The process id of NAME if it runs and is ours: started for this folder.
running() {
  local file="$DIR/$1.pid" pid
  [[ -r "$file" ]] || return 1
  pid="$(<"$file")"
  [[ "$pid" =~ ^[0-9]+$ && -r "/proc/$pid/cmdline" ]] || return 1
  # Ours: a tidegated whose --data is this folder's.
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "$DIR/$1" || return 1
  [[ "$(awk '{print $3}' "/proc/$pid/stat" 2>/dev/null)" != Z ]] || return 1
  echo "$pid"
}

# Starts NAME with the arguments after it, unless it runs.
start() {
  local name="$1"
  shift
  if running "$name" >/dev/null; then
    return
  fi
  mkdir -p "$DIR/$name"
  # Of its own session: Ctrl-C in the terminal does not reach it.
  setsid "$BIN/tidegated" "$@" </dev/null >>"$DIR/$name.log" 2>&1 &
  echo $! >"$DIR/$name.pid"
  disown
  # Until the program is in its place it cannot be told from this script.
  local tries=50
  until running "$name" >/dev/null || ((tries-- == 0)); do sleep 0.02; done
}

# Fails with the end of NAME's log once NAME has ended.
must_run() {
  running "$1" >/dev/null && return
  tail -n 20 "$DIR/$1.log" >&2
  die "$1 has ended; the lines above are the end of $DIR/$1.log"
}

# Waits until PORT of NAME takes connections.
await_port() {
  local name="$1" port="$2" tries=$((ANSWER_SECONDS * 10))
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    must_run "$name"
    ((tries-- > 0)) || die "$name did not listen at port $port in ${ANSWER_SECONDS} s; see $DIR/$name.log"
    sleep 0.1
  done
}

# Waits until node I answers and sees every node it knows of up.
await_node() {
  local name="n$1" port
  port="$(grpc_port "$1")"
  await_port "$name" "$port"
  "$BIN/tidegate" --endpoint "http://127.0.0.1:$port" status --wait "$ANSWER_SECONDS" >/dev/null ||
    die "$name does not answer; see $DIR/$name.log"
}

up() {
  local i join
  for program in tidegated tidegate; do
    [[ -x "$BIN/$program" ]] || die "$BIN/$program is not there; run \`cargo build\`, or set BIN"
  done
  mkdir -p "$DIR"
  if [[ "$DOCS" == yes ]]; then
    start docs documents --data "$DIR/docs" --listen "127.0.0.1:$(docs_port)"
  fi
  for ((i = 1; i <= N; i++)); do
    join=(--join "127.0.0.1:$PORT")
    ((i > 1)) || join=(--bootstrap)
    start "n$i" run --data "$DIR/n$i" --name "n$i" --listen "127.0.0.1:$(grpc_port "$i")" \
      --metrics-listen "127.0.0.1:$(metrics_port "$i")" "${join[@]}"
    # The first makes the cluster that the others join.
    ((i > 1)) || await_node 1
  done
  for ((i = 2; i <= N; i++)); do await_node "$i"; done
  if [[ "$DOCS" == yes ]]; then
    await_port docs "$(docs_port)"
  fi
}

# Numbers of the nodes there are pid files of.
nodes() {
  local i
  for ((i = 1; i <= 99; i++)); do
    [[ ! -e "$DIR/n$i.pid" ]] || echo "$i"
  done
}

# One process as JSON. Its id is null when it does not run.
entry() {
  local name="$1" port="$2" pid
  pid="$(running "$name")" || pid=null
  printf '{"name":"%s","endpoint":"http://127.0.0.1:%s","pid":%s}' "$name" "$port" "$pid"
}

status() {
  local i separator=""
  printf '{"dir":"%s","nodes":[' "$DIR"
  for i in $(nodes); do
    printf '%s' "$separator"
    entry "n$i" "$(grpc_port "$i")"
    separator=","
  done
  printf '],"documents":'
  if [[ -e "$DIR/docs.pid" ]]; then entry docs "$(docs_port)"; else printf 'null'; fi
  printf '}\n'
}

# Waits until NAME with process id PID has ended, at most END_SECONDS.
ended() {
  local tries=$((END_SECONDS * 10))
  while [[ "$(running "$1")" == "$2" ]]; do
    ((tries-- > 0)) || return 1
    sleep 0.1
  done
}

# Asks every process to end, then waits, then ends what is left.
down() {
  local names=() name pid
  for name in $(nodes); do names+=("n$name"); done
  if [[ -e "$DIR/docs.pid" ]]; then names+=(docs); fi
  for name in "${names[@]}"; do
    if pid="$(running "$name")"; then kill -TERM "$pid" 2>/dev/null || true; fi
  done
  for name in "${names[@]}"; do
    if pid="$(running "$name")" && ! ended "$name" "$pid"; then
      echo "cluster.sh: $name did not end in ${END_SECONDS} s; killing it" >&2
      kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$DIR/$name.pid"
  done
  status
}

[[ $# -gt 0 ]] || { usage >&2; exit 2; }
COMMAND="$1"
shift
N="" DIR="" DOCS=yes
for argument in "$@"; do
  case "$argument" in
    --no-docs) DOCS=no ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *[!0-9]*) DIR="$argument" ;;
    *) N="$argument" ;;
  esac
done
DIR="$(realpath --canonicalize-missing -- "${DIR:-./.cluster}")"

case "$COMMAND" in
  up)
    [[ -n "$N" && "$N" -ge 1 && "$N" -le 99 ]] || die "say how many nodes, from 1 to 99: cluster.sh up 3"
    up
    status
    ;;
  down) down ;;
  status) status ;;
  --help | -h | help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
