#!/usr/bin/env bash
# Builds for release and runs one benchmark: ratios, failover or redis. More arguments go to it.
set -euo pipefail

cd "$(dirname "$0")/.."
bench="${1:?which benchmark: ratios, failover or redis}"
shift
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidegate/target}"
measured="$(date -u +%Y-%m-%d) $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
# Always the whole workspace, and the bench with it: another choice of features
# would build the libraries twice.
cargo build --release --workspace --bins --bench "$bench"
# Copies: another build in the same target folder must not change what is measured.
TIDEGATE_BIN="$(mktemp -d)"
export TIDEGATE_BIN
trap 'rm -rf "$TIDEGATE_BIN"' EXIT
cp "$CARGO_TARGET_DIR/release/tidegate" "$CARGO_TARGET_DIR/release/tidegated" "$TIDEGATE_BIN/"
# An empty setting means the default.
for name in RATE KEYS SEED; do
    [[ -n "${!name:-}" ]] || unset "$name"
done
cargo bench --workspace --bench "$bench" -- --measured "$measured" "$@"
