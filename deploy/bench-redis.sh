#!/usr/bin/env bash
# Builds for release, and does to a Redis under load, and to who reads it, what can go wrong: RATE, KEYS, SEED.
set -euo pipefail

cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidegate/target}"
measured="$(date -u +%Y-%m-%d) $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
cargo build --release --workspace --bins --bench redis
# Copies: another build in the same target folder must not change what is measured.
TIDEGATE_BIN="$(mktemp -d)"
export TIDEGATE_BIN
trap 'rm -rf "$TIDEGATE_BIN"' EXIT
cp "$CARGO_TARGET_DIR/release/tidegate" "$CARGO_TARGET_DIR/release/tidegated" "$TIDEGATE_BIN/"
# An empty setting means the default.
for name in RATE KEYS SEED; do
    [[ -n "${!name:-}" ]] || unset "$name"
done
cargo bench --workspace --bench redis -- --measured "$measured" "$@"
