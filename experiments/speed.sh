#!/usr/bin/env bash
# Speed of the reference engine, whole process: 1,000 decode tokens of DeepSeek-V2-Lite shape (synthetic), and --help.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/slicesim trace synth traces/deepseek-v2-lite-published.yaml --tokens 1000 --prompt-fraction 0 -o "$folder/t.parquet"
for policy in slicemoe dbsc lru-high; do
    echo "slicesim run, 1,000 decode tokens, $policy:"
    time .venv/bin/slicesim run hwconfigs/mobile.yaml --policy "$policy" --trace "$folder/t.parquet" \
        --set trace.split=all-decode --out "$folder/out" >/dev/null
done
echo "slicesim --help:"
time .venv/bin/slicesim --help >/dev/null
