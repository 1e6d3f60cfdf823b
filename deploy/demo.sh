#!/usr/bin/env bash
# The main job, end to end: three nodes export a document store under write load
# to a Parquet lake and to a live feed; the busiest node is killed half way and
# comes back; at the end store, lake and feed are compared document by document.
set -euo pipefail

documents=${DOCUMENTS:-200000}
port=${PORT:-7600}
folder=${DEMO_DIR:-$PWD/.demo}
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-${CARGO_TARGET_DIR:-target}/debug}
python=${PYTHON:-$HOME/.cache/tidegate/py/bin/python}

rm -rf "$folder"
mkdir -p "$folder/lake"
exec "$python" "$here/demo.py" --documents "$documents" --port "$port" --folder "$folder" --bin "$bin"
