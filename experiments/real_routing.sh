#!/usr/bin/env bash
# SliceMoE's decisions against a plain high-precision cache on real DeepSeek-V2-Lite routing: the table of the README.
#   experiments/real_routing.sh PATH/TO/law.npz
set -euo pipefail
trace=${1:?"usage: experiments/real_routing.sh TRACE (a recorded DeepSeek-V2-Lite trace)"}
cd "$(dirname "$0")/.."
for overlap in serial layer; do
    for pair in "8 4 2.4" "6 3 3.6"; do
        read -r high low capacity <<<"$pair"
        .venv/bin/slicesim compare hwconfigs/mobile.yaml --policies lru-high,dbsc --trace "$trace" \
            --set trace.split=all-decode --set schedule.overlap="$overlap" \
            --set amat.high_bits="$high" --set amat.low_bits="$low" --set cache.capacity_gb="$capacity"
    done
done
