#!/usr/bin/env bash
# Builds for release and measures: the rows in $ROWS (as P3,P5), or all of them.
set -euo pipefail

cd "$(dirname "$0")/.."
measured="$(date -u +%Y-%m-%d) $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
# Always the whole workspace, and the bench with it: another choice of features
# would build the libraries twice.
cargo build --release --workspace --bins --bench ratios
exec cargo bench --workspace --bench ratios -- --measured "$measured" "$@"
