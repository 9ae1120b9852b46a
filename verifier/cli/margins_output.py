"""What the commands of `margins` write and show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verifier.cli.files import write_json, write_whole
from verifier.cli.margins_input import Gathered
from verifier.cli.screens import print_table


def write_report(
    found: Gathered, reports: list[Any], epsilon: float | None, json: Path | None, plot: Path | None,
    pictures: Path | None,
) -> None:  # fmt: skip
    """The files that `report` was asked for."""
    if json is not None:
        content = {
            "network": found.name,
            "sha256": found.graph.file.sha256 if found.graph.file else None,
            "norm": found.norm,
            "epsilon": epsilon,
            "indices": found.indices,
            "misclassified": [i for i, right in zip(found.indices, found.samples.correct, strict=True) if not right],
            "scores": [one.as_object(found.indices) for one in reports],
        }
        write_json(json, content)
    if plot is not None:
        from verifier.analysis.margins.plots import report_figure

        title = f"{found.name}: {len(found.indices)} inputs, norm {found.norm}"
        report_figure(reports, found.samples, epsilon, title).savefig(plot)
    if pictures is not None and reports[0].pairs:
        from verifier.analysis.margins.plots import pair_figure

        rows = []
        for pair in reports[0].pairs:
            above = f"{found.indices[pair.first]}: score {pair.scores[0]:.3g}\nmargin <= {pair.upper:.4f}"
            below = f"{found.indices[pair.second]}: score {pair.scores[1]:.3g}\nmargin >= {pair.lower:.4f}"
            rows.append((found.inputs[pair.first], above, found.inputs[pair.second], below))
        pair_figure(rows, f"{reports[0].name}: larger score above, larger margin below").savefig(pictures)


def show_report(found: Gathered, reports: list[Any], epsilon: float | None, classes: bool) -> None:
    """The tables of `report`."""
    from verifier.analysis.margins.tables import class_table, consistency_table, estimate_table, pair_table

    wrong = int((~found.samples.correct).sum())
    title = f"{found.name}: {len(found.indices)} inputs ({wrong} misclassified), norm {found.norm}"
    if epsilon is not None:
        first = reports[0].detection
        title += f", epsilon {epsilon:g}: {first.brittle} brittle, {first.robust} robust, {first.unknown} unknown"
    print_table(consistency_table(reports, title))
    if classes:
        for one in reports:
            print_table(class_table(one))
    if reports[0].pairs:
        print_table(pair_table(reports[0], found.indices))
    if epsilon is not None:
        print_table(estimate_table(reports, epsilon))


def write_detector(
    found: Gathered, detector: Any, scores: Any, json: Path | None, out: Path | None, onnx: Path | None,
    plot: Path | None,
) -> None:  # fmt: skip
    """The files that `calibrate` was asked for."""
    for path, flag in ((out, "--out"), (json, "--json")):
        if path is not None:
            write_whole(path, detector.document(), flag)
    if onnx is not None:
        from verifier.analysis.margins.export import exported

        write_whole(onnx, exported(found.graph, detector).SerializeToString(), "--onnx")
    if plot is not None:
        from verifier.analysis.margins.plots import calibration_figure

        t = detector.threshold
        title = f"{found.name}: {detector.score}, {t.rule}, level {t.alpha:g}, norm {found.norm}"
        calibration_figure(detector.score, scores, found.samples, t.epsilon, t, title).savefig(plot)
