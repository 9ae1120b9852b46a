#!/usr/bin/env bash
# Before the clock starts: prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Nothing is converted. The files that every run loads are read once, so that no run pays for a cold disk.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
expect_version 4 "v1 CATEGORY ONNX VNNLIB" "$@"

for file in "$3" "$4"; do
    [ -r "$file" ] || { echo "$(basename "$0"): $file cannot be read" >&2; exit 1; }
done
"$PYTHON" -c 'import torch, onnx, onnxruntime, vnnlib'
