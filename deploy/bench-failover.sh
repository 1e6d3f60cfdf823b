#!/usr/bin/env bash
# Builds for release, and measures what a subscriber sees of KILLS, FREEZES and MOVES.
set -euo pipefail

cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidegate/target}"
measured="$(date -u +%Y-%m-%d) $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
cargo build --release --workspace --bins --bench failover
# Copies: another build in the same target folder must not change what is measured.
TIDEGATE_BIN="$(mktemp -d)"
export TIDEGATE_BIN
trap 'rm -rf "$TIDEGATE_BIN"' EXIT
cp "$CARGO_TARGET_DIR/release/tidegate" "$CARGO_TARGET_DIR/release/tidegated" "$TIDEGATE_BIN/"
cargo bench --workspace --bench failover -- --measured "$measured" "$@"
