"""The commands `margins report`, `margins calibrate`, `margins screen` and `margins logits`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from verifier.cli import options
from verifier.cli.checks import check_files, check_picture, check_timeout, parse_positive
from verifier.cli.files import STDOUT, write_json
from verifier.cli.margins_input import Gathered, fitted, gather, load_networks, parse_scores
from verifier.cli.margins_output import show_report, write_detector, write_report
from verifier.cli.request import chosen, query_flags
from verifier.cli.screens import Status, print_table
from verifier.errors import InputError
from verifier.process import use_threads

margins = typer.Typer(
    help="Brittle decisions: what scores of the logits say of margins, and detectors with a guarantee.",
    epilog="Example: verifier margins report NETWORK.onnx --brackets brackets.json --epsilon 0.05",
    rich_markup_mode=None,
)

_STATUS = "\n\b\nExit status: 0 done, 2 bad usage or input, 70 an internal error."
REPORT = f"""
\b
Examples:
  verifier margins report models/digits_mlp.onnx --dataset digits
      --index 0:50 --epsilon 0.05
  verifier margins report network.onnx --brackets brackets.json
      --epsilon 8/255 --score logit-margin,feature-margin --plot report.png
{_STATUS}
"""
CALIBRATE = f"""
\b
Examples:
  verifier margins calibrate models/digits_mlp.onnx --dataset digits
      --index 0:60 --epsilon 0.03 --alpha 0.1 --out detector.json
  verifier margins calibrate network.onnx --brackets brackets.json
      --epsilon 8/255 --alpha 0.05 --rule selective --onnx screened.onnx
{_STATUS}
"""
SCREEN = f"""
\b
Example:
  verifier margins screen network.onnx detector.json --dataset digits
      --index 0:100 --json flags.json
{_STATUS}
"""
LOGITS = f"""
\b
Example:
  verifier margins logits models/digits_cnn.onnx models/digits_robust.onnx
      --dataset digits --index 0:500 --plot logits.png
{_STATUS}
"""

Brackets = Annotated[
    list[Path] | None,
    typer.Option(
        "--brackets", metavar="FILE", help="Brackets that verifier radius --json has written; may be repeated."
    ),
]
Fit = Annotated[
    list[Path] | None,
    typer.Option("--fit", metavar="FILE", help="Brackets of other inputs, from which pseudo-margin learns."),
]
FitOn = Annotated[str, typer.Option(metavar="features|logits", help="What pseudo-margin reads.")]
FitTarget = Annotated[str, typer.Option(metavar="sqrt|max", help="What it learns: sqrt(margin), or margin/largest.")]
FitEpochs = Annotated[int, typer.Option(metavar="N", min=1, help="Epochs of its training.")]
Epsilon = Annotated[str | None, typer.Option(metavar="RADIUS", help="An input is brittle within it: 0.03 or 8/255.")]
Scores = Annotated[
    str, typer.Option("--score", metavar="NAME,..", help="logit-margin, margin-over-gradient, feature-margin, "
                      "pseudo-margin, crown-margin.")
]  # fmt: skip
Score = Annotated[str, typer.Option(metavar="NAME", help="One of the scores of margins report.")]
Large = Annotated[
    str | None, typer.Option(metavar="RANGE", help="Further inputs of the data set, for the robust accuracy.")
]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="Time for each input whose bracket is sought.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result: .png, .svg or .pdf.")]
Pictures = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the inconsistent pairs: .png, .svg or .pdf.")]


@margins.command(epilog=REPORT)
def report(
    context: typer.Context,
    network: options.Network,
    brackets: Brackets = None,
    dataset: options.Dataset = None,
    index: options.Index = None,
    norm: options.Norm = None,
    epsilon: Epsilon = None,
    score: Scores = "logit-margin,margin-over-gradient",
    fit: Fit = None,
    fit_on: FitOn = "features",
    fit_target: FitTarget = "sqrt",
    fit_epochs: FitEpochs = 500,
    large: Large = None,
    pairs: Annotated[int, typer.Option(metavar="K", min=0, max=100, help="Inconsistent pairs to list.")] = 5,
    classes: Annotated[bool, typer.Option("--by-class", help="Also a table by predicted class.")] = False,
    timeout: Timeout = 10.0,
    mean: options.Mean = None,
    std: options.Std = None,
    no_clip: options.NoClip = False,
    data_dir: options.DataDir = None,
    plot: Plot = None,
    pictures: Pictures = None,
    threads: options.Threads = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """How well scores of the logits stand for input margins, by what brackets prove."""
    names = parse_scores(score)
    check_timeout(timeout)
    check_files(json=json)
    check_picture(plot)
    check_picture(pictures, "--pictures")
    use_threads(threads)
    flags = query_flags(index, None, norm, None, mean, std, no_clip, data_dir)
    settings = {"timeout": timeout, "device": device, "seed": seed}
    with Status(not quiet) as status:
        found = gather(network, brackets, dataset, flags, settings, threads, status)
        radius = _radius(epsilon)
        reports = _reports(
            found, names, radius, large, pairs, (fit, fit_on, fit_target, fit_epochs), device, seed, status
        )
    write_report(found, reports, radius, json, plot, pictures)
    if not quiet and json != STDOUT:
        show_report(found, reports, radius, classes)
    return 0


@margins.command(epilog=CALIBRATE)
def calibrate(
    context: typer.Context,
    network: options.Network,
    epsilon: Annotated[str, typer.Option(metavar="RADIUS", help="What passes shall be robust within it.")],
    brackets: Brackets = None,
    dataset: options.Dataset = None,
    index: options.Index = None,
    norm: options.Norm = None,
    score: Score = "logit-margin",
    fit: Fit = None,
    fit_on: FitOn = "features",
    fit_target: FitTarget = "sqrt",
    fit_epochs: FitEpochs = 500,
    alpha: Annotated[float, typer.Option(metavar="LEVEL", help="Level of the risk.")] = 0.05,
    delta: Annotated[float, typer.Option(metavar="P", help="Of selective: how often the level may be missed.")] = 0.1,
    rule: Annotated[
        str,
        typer.Option(
            metavar="conformal|selective",
            help="Bound P(passed and below epsilon) on average, or P(below epsilon | passed) with confidence 1 - P.",
        ),
    ] = "conformal",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the detector as JSON.")] = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write network and detector: logits, score, flag.")
    ] = None,
    timeout: Timeout = 10.0,
    mean: options.Mean = None,
    std: options.Std = None,
    no_clip: options.NoClip = False,
    data_dir: options.DataDir = None,
    plot: Plot = None,
    threads: options.Threads = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Choose the score below which a decision is flagged as brittle, with a guarantee for what passes."""
    (name,) = parse_scores(score, single=True)
    check_timeout(timeout)
    check_files(json=json, out=out, onnx=onnx)
    check_picture(plot)
    use_threads(threads)
    flags = query_flags(index, None, norm, None, mean, std, no_clip, data_dir)
    settings = {"timeout": timeout, "device": device, "seed": seed}
    with Status(not quiet) as status:
        found = gather(network, brackets, dataset, flags, settings, threads, status)
        detector, scores = _calibrated(
            found,
            name,
            _radius(epsilon),
            alpha,
            delta,
            rule,
            (fit, fit_on, fit_target, fit_epochs),
            device,
            seed,
            network,
        )
    write_detector(found, detector, scores, json, out, onnx, plot)
    if not quiet and json != STDOUT:
        from verifier.analysis.margins.artifact import SCOPE

        t = detector.threshold
        print(f"flag where {name} <= {t.value:.6g}: {t.passed} of the {t.n} calibration inputs that test it pass")
        print(f"of these {t.risky} are not verified at {t.epsilon:g}\nguarantee: {t.guarantee}\n{SCOPE}")
    return 0


@margins.command(epilog=SCREEN)
def screen(
    context: typer.Context,
    network: options.Network,
    detector: Annotated[Path, typer.Argument(metavar="DETECTOR", help="File of margins calibrate --out.")],
    dataset: options.Dataset = None,
    index: options.Index = None,
    data_dir: options.DataDir = None,
    threads: options.Threads = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Flag the inputs whose decision is brittle as far as a calibrated detector can tell."""
    check_files(json=json)
    use_threads(threads)
    inputs = chosen(dataset, query_flags(index, None, None, None, None, None, False, data_dir))
    from verifier.analysis.margins.artifact import SCOPE, read_detector
    from verifier.cli.load import load_points
    from verifier.graph import load

    graph, made = load(network), read_detector(detector)
    made.require(graph)
    points = load_points(replace(inputs, clip=made.metric.clip is not None), graph)
    scores = made.scores(graph, [point.x for point in points], device)
    flags = made.flags(scores)
    rows = [
        {"index": point.index, "label": point.label, "score": float(s), "flag": bool(f)}
        for point, s, f in zip(points, scores, flags, strict=True)
    ]
    if json is not None:
        content = {"detector": made.as_object(weights=False), "flagged": int(flags.sum()), "results": rows}
        write_json(json, content)
    if not quiet and json != STDOUT:
        flagged = [str(row["index"]) for row in rows if row["flag"]]
        print(f"{len(flagged)} of {len(rows)} inputs flagged" + (f": {', '.join(flagged)}" if flagged else ""))
        print(f"guarantee: {made.threshold.guarantee}\n{SCOPE}")
    return 0


@margins.command(epilog=LOGITS)
def logits(
    context: typer.Context,
    networks: Annotated[
        list[Path], typer.Argument(metavar="NETWORK...", help="ONNX files; the first is compared with.")
    ],
    dataset: options.Dataset = None,
    index: options.Index = None,
    mean: options.Mean = None,
    std: options.Std = None,
    no_clip: options.NoClip = False,
    data_dir: options.DataDir = None,
    plot: Plot = None,
    threads: options.Threads = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Largest logit, gap, logit-margin loss, confidence and gradients of networks on the same inputs."""
    check_files(json=json)
    check_picture(plot)
    use_threads(threads)
    inputs = chosen(dataset, query_flags(index, None, None, None, mean, std, no_clip, data_dir))
    found = load_networks(networks, inputs, device)
    if json is not None:
        content = {"networks": [one.as_object(found[0]) for one in found]}
        write_json(json, content)
    title = f"{len(found[0].labels)} inputs of {Path(inputs.dataset).name}"
    if plot is not None:
        from verifier.analysis.margins.plots import logit_figure

        logit_figure(found, title).savefig(plot)
    if not quiet and json != STDOUT:
        from verifier.analysis.margins.tables import logit_table

        print_table(logit_table({one.name: one.means() for one in found}, f"means of {title}"))
        for one in found:
            print_table(logit_table(one.by_class(), f"{one.name}, by class", "class"))
    return 0


def _radius(text: str | None) -> float | None:
    if text is None:
        return None
    return parse_positive(text, "--epsilon", "radius", "8/255")


def _reports(
    found: Gathered, names: tuple[str, ...], epsilon: float | None, large: str | None, pairs: int, fit: Any,
    device: str, seed: int, status: Status,
) -> list[Any]:  # fmt: skip
    from verifier.analysis.margins.report import report
    from verifier.analysis.margins.samples import require_correct
    from verifier.analysis.margins.scores import score

    require_correct(found.samples)
    made = fitted(found, names, epsilon, fit, device, seed)
    further = found.further(large)
    rows = []
    for name in names:
        status.show(name)
        more = None
        if further is not None:
            more = (score(name, found.graph, [point.x for point in further.points], made), further.correct(made))
        scores = score(name, found.graph, found.inputs, made)
        rows.append(report(name, scores, found.samples, epsilon, more, pairs, seed=seed))
    return rows


def _calibrated(
    found: Gathered, name: str, epsilon: float | None, alpha: float, delta: float, rule: str, fit: Any, device: str,
    seed: int, network: Path,
) -> tuple[Any, Any]:  # fmt: skip
    from verifier.analysis.margins.artifact import Detector
    from verifier.analysis.margins.detector import RULES, calibrate
    from verifier.analysis.margins.samples import require_correct
    from verifier.analysis.margins.scores import score

    if rule not in RULES:
        raise InputError(f"--rule {rule}", "is not known", f"choose {' or '.join(RULES)}")
    assert epsilon is not None and found.graph.file is not None
    require_correct(found.samples)
    made = fitted(found, (name,), epsilon, fit, device, seed)
    scores = score(name, found.graph, found.inputs, made)
    threshold = calibrate(scores, found.samples, epsilon, alpha, rule, delta, seed)
    return Detector(name, threshold, str(network), found.graph.file.sha256, made.metric, made.pseudo), scores
