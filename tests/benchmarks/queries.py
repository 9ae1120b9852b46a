"""VNN-LIB files for the shipped network of digits: robustness of its first image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import verifier

ROOT = Path(__file__).resolve().parents[2]
NETWORK = ROOT / "models" / "digits_mlp.onnx"


def write_spec(path: Path, epsilon: float, cut: int | None = None) -> Path:
    """Another class wins somewhere within epsilon of the first image; `cut` keeps only so many characters."""
    images = verifier.load_dataset("digits")
    x, label = np.asarray(images.x[0]).reshape(-1), int(images.y[0])
    lines = [f"(declare-const X_{i} Real)" for i in range(len(x))] + [f"(declare-const Y_{k} Real)" for k in range(10)]
    for i, value in enumerate(x):
        lines += [f"(assert (>= X_{i} {max(0.0, value - epsilon):.9f}))"]
        lines += [f"(assert (<= X_{i} {min(1.0, value + epsilon):.9f}))"]
    others = " ".join(f"(and (>= Y_{k} Y_{label}))" for k in range(10) if k != label)
    lines.append(f"(assert (or {others}))")
    path.write_text("\n".join(lines)[:cut])
    return path
