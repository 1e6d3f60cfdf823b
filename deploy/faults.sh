#!/usr/bin/env bash
# Builds, and does to a cluster in network namespaces what can go wrong: SEED, MINUTES, FAULTS=F5,F9. Needs root.
set -euo pipefail

cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidegate/target}"
measured="$(date -u +%Y-%m-%d) $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
# The development build, as the tests use it: it is there already, and asserts more.
cargo build --workspace --bins --bench faults
# Copies: another build in the same target folder must not change what runs.
TIDEGATE_BIN="$(mktemp -d)"
export TIDEGATE_BIN
trap 'rm -rf "$TIDEGATE_BIN"' EXIT
cp "$CARGO_TARGET_DIR/debug/tidegate" "$CARGO_TARGET_DIR/debug/tidegated" "$TIDEGATE_BIN/"
# An empty setting means the default.
for name in SEED MINUTES FAULTS RATE NODES; do
    [[ -n "${!name:-}" ]] || unset "$name"
done
cargo test --workspace --bench faults -- --measured "$measured" "$@"
