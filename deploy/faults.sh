#!/usr/bin/env bash
# Builds, and does to a cluster in network namespaces what can go wrong: SEED, MINUTES, FAULTS=F5,F9. With FROM=commit the
# nodes run that version, and F26 rolls them to this one and back. Needs root.
set -euo pipefail

cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidegate/target}"
measured="$(date -u +%Y-%m-%d) $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')"
# The development build, as the tests use it: it is there already, and asserts more.
cargo build --workspace --bins --bench faults
# Copies: another build in the same target folder must not change what runs.
TIDEGATE_BIN="$(mktemp -d)"
export TIDEGATE_BIN
trap 'rm -rf "${TIDEGATE_NEXT:-$TIDEGATE_BIN}"' EXIT
cp "$CARGO_TARGET_DIR/debug/tidegate" "$CARGO_TARGET_DIR/debug/tidegated" "$TIDEGATE_BIN/"
if [[ -n "${FROM:-}" ]]; then
    export FAULTS="${FAULTS:-F26}"
    commit="$(git rev-parse --short "$FROM^{commit}")"
    versions="${TIDEGATE_CACHE:-$HOME/.cache/tidegate}/versions"
    if [[ ! -x "$versions/$commit/tidegated" ]]; then
        echo "building $commit; the first other version takes as long as the first build here"
        rm -rf "$versions/source"
        mkdir -p "$versions/source" "$versions/$commit"
        # Files are as old as now: cargo takes what is older than its last build for built.
        git archive "$commit" | tar -xm -C "$versions/source"
        # In a target folder of its own: cargo tells two checkouts of a workspace apart by nothing else.
        (cd "$versions/source" && CARGO_TARGET_DIR="$versions/target" cargo build --workspace --bins)
        cp "$versions/target/debug/tidegate" "$versions/target/debug/tidegated" "$versions/$commit/"
    fi
    export TIDEGATE_NEXT="$TIDEGATE_BIN"
    TIDEGATE_BIN="$versions/$commit"
    measured+=", from $commit"
    set -- --into "$PWD/deploy/bench/upgrade.md" "$@"
fi
# An empty setting means the default.
for name in SEED MINUTES FAULTS RATE NODES; do
    [[ -n "${!name:-}" ]] || unset "$name"
done
cargo test --workspace --bench faults -- --measured "$measured" "$@"
