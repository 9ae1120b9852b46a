#!/usr/bin/env bash
# One query: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT
# Writes sat and the witness, unsat, timeout, unknown or error into RESULTS_FILE, within TIMEOUT seconds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
expect_version 6 "v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT" "$@"
network=$3 spec=$4 results=$5 limit=$6

rm -f "$results"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The engine's clock starts when Python does, and an answer has to be written out: 0.8 s for both, or half of a short
# limit. The guard kills what does not keep to its limit.
seconds=$(awk -v t="$limit" 'BEGIN { print (t > 1.6 ? t - 0.8 : t / 2) }')
guard=()
if command -v timeout >/dev/null; then
    guard=(timeout --signal=KILL "$(awk -v t="$limit" 'BEGIN { print (t > 1.2 ? t - 0.2 : 0.8 * t) }')")
fi

status=0
${guard[@]+"${guard[@]}"} "$PYTHON" -m verifier verify "$network" "$spec" --timeout "$seconds" --quiet \
    --json "$folder/result.json" --witness "$folder/witness.txt" || status=$?

case $status in
    0) echo unsat > "$folder/answer" ;;
    1) cat "$folder/witness.txt" > "$folder/answer" ;; # its first line is sat
    3) if grep -q '"reason": "timeout"' "$folder/result.json"; then echo timeout; else echo unknown; fi > "$folder/answer" ;;
    137) echo timeout > "$folder/answer" ;; # killed by the guard
    *) echo error > "$folder/answer" ;;
esac
cp "$folder/answer" "$results"
