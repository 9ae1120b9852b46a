"""The command `margins distil`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from verifier.cli import options
from verifier.cli.checks import check_files, parse_names
from verifier.cli.files import STDOUT, write_json
from verifier.cli.request import Inputs, chosen, query_flags
from verifier.cli.screens import Status, print_table
from verifier.errors import InputError
from verifier.process import use_threads

EPILOG = """
\b
Example:
  verifier margins distil models/digits_robust.onnx --dataset digits
      --index 0:50 --epsilon 0.05

\b
Exit status: 0 done, 2 bad usage or input, 70 an internal error.
"""

Changes = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,..", help="none, average, permute, template, class-mean, shuffle-gaps; all if not given."
    ),
]


def distil(
    context: typer.Context,
    network: options.Network,
    epsilon: Annotated[str, typer.Option(metavar="RADIUS", help="At which students are attacked and verified.")],
    dataset: options.Dataset = None,
    index: options.Index = None,
    norm: options.Norm = None,
    changes: Changes = None,
    train: Annotated[str, typer.Option(metavar="RANGE", help="Inputs of the train split to learn from.")] = "0:1000",
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Of each student.")] = 40,
    temperature: Annotated[float, typer.Option(metavar="T", help="By which logits are divided.")] = 1.0,
    mean: options.Mean = None,
    std: options.Std = None,
    data_dir: options.DataDir = None,
    threads: options.Threads = None,
    json: options.Json = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Train small students on a network's logits, changed below the largest, and see what robustness they keep."""
    check_files(json=json)
    use_threads(threads)
    inputs = chosen(dataset, query_flags(index, None, norm, None, mean, std, False, data_dir))
    from verifier.analysis.margins.distil import CHANGES, DistilOptions  # torch behind it
    from verifier.specs.exact import parse_epsilon

    if not temperature > 0:
        raise InputError(f"--temperature {temperature:g}", "is not positive", "give a positive number, such as 1")
    names = list(CHANGES) if changes is None else list(parse_names(changes))
    made = DistilOptions(epochs=epochs, temperature=temperature, seed=seed)
    with Status(not quiet) as status:
        found = _students(network, inputs, names, parse_epsilon(epsilon), train, made, device, status)
    if json is not None:
        content = {"network": str(network), "epsilon": parse_epsilon(epsilon), "norm": inputs.norm, "students": found}
        write_json(json, content)
    if not quiet and json != STDOUT:
        from verifier.analysis.margins.tables import logit_table

        title = f"students of {network.name}, {len(inputs.indices)} inputs, norm {inputs.norm}, epsilon {epsilon}"
        print_table(logit_table(found, title, "logits"))
    return 0


def _students(
    network: Path, inputs: Inputs, names: list[str], epsilon: float, train: str, made: Any, device: str, status: Status
) -> dict[str, dict[str, float]]:
    """What each student can do, by the change of its teacher's logits."""
    import torch

    from verifier.analysis.brackets import Metric
    from verifier.analysis.margins.distil import distil
    from verifier.analysis.margins.scores import Scored, ScoreOptions
    from verifier.cli.load import load_points
    from verifier.graph import load
    from verifier.specs.datasets import load_dataset, parse_index

    graph = load(network)
    test = load_points(inputs, graph)
    data = load_dataset(inputs.dataset, inputs.folder, "train")
    if inputs.dataset.endswith(".npz"):
        raise InputError(f"--dataset {inputs.dataset}", "has no train split", "name digits, mnist or cifar10")
    x = torch.from_numpy(data.x[parse_index(train, len(data))])
    scored = Scored.of(graph, ScoreOptions(Metric(inputs.norm, (0.0, 1.0), inputs.mean, inputs.std), device=device))
    with torch.no_grad():
        teacher = torch.cat([scored.outputs(scored.tensor(list(part.numpy()))).cpu() for part in x.split(256)])
    found = {}
    for name in names:
        status.show(f"student of {name}")
        points, labels = [point.x for point in test], [point.label for point in test]
        found[name] = asdict(distil(name, teacher, x, points, labels, epsilon, Metric(inputs.norm), made))
    return found
