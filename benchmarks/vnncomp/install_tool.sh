#!/usr/bin/env bash
# Installs what the tool needs, unless the active Python has it already: install_tool.sh v1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
expect_version 1 "v1" "$@"

found='import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("torch", "onnx", "onnxruntime", "vnnlib", "typer"))))'
if ! "$PYTHON" -c "$found"; then
    make -C "$ROOT" --no-print-directory .venv/.runtime
fi
