#!/usr/bin/env bash
# Restarts all nodes of a cluster, one after the other, without losing a change.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: deploy/rolling-restart.sh RESTART...

Drains each node, runs the command RESTART with the node's name as its last
argument, waits until the node is up again, and lets it have work. A shard
moves, and stalls for a moment, each time its node is drained: once, or twice if
it was on the first. Stops before a node if another one is down.

The cluster is asked at $TIDEGATE_ENDPOINT (all nodes, comma-separated), by
$TIDEGATE, else by `tidegate`. For a cluster of deploy/cluster.sh:

  deploy/rolling-restart.sh ./restart-node.sh

TEXT
}

die() {
  echo "rolling-restart.sh: $*" >&2
  exit 1
}

[[ $# -gt 0 && "$1" != -h && "$1" != --help ]] || { usage; exit 0; }
TIDEGATE="${TIDEGATE:-tidegate}"
WAIT_SECONDS="${WAIT_SECONDS:-120}"

ask() { "$TIDEGATE" --output json "$@"; }

# The value of a field of NAME in `node list`.
field() {
  ask node list | python3 -c '
import json, sys
name, field = sys.argv[1:]
print(next(n[field] for n in json.load(sys.stdin)["nodes"] if n["name"] == name))' "$1" "$2"
}

names="$(ask node list | python3 -c '
import json, sys
# The leader last: then there is one election, not several.
nodes = json.load(sys.stdin)["nodes"]
nodes.sort(key=lambda node: node["role"] == "leader")
print("\n".join(node["name"] for node in nodes))')"

for name in $names; do
  down="$(ask node list | python3 -c '
import json, sys
print(*(n["name"] for n in json.load(sys.stdin)["nodes"] if n["state"] != "up"))')"
  [[ -z "$down" ]] || die "$down: not up; without it and $name the cluster may lose its majority: start it first"
  echo "$name: draining"
  before="$(field "$name" since_ms)"
  ask node drain "$name" >/dev/null
  echo "$name: restarting"
  "$@" "$name"
  tries=$((WAIT_SECONDS * 5))
  until [[ "$(field "$name" state)" == up && "$(field "$name" since_ms)" != "$before" ]]; do
    ((tries-- > 0)) || die "$name did not come up again in ${WAIT_SECONDS} s; it stays cordoned"
    sleep 0.2
  done
  ask node uncordon "$name" >/dev/null
  echo "$name: up"
done
