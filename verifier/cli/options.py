"""Arguments and flags of the commands, as annotations, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verifier.cli.request import parse_device

#: far more than help; a process that cannot start them would be stopped by the system
MOST_THREADS = 1024
#: 63 bits: one more is still a seed for torch
LARGEST_SEED = 2**63 - 1


def _set_debug(context: typer.Context, wanted: bool) -> bool:
    context.obj.debug = context.obj.debug or wanted
    return wanted


Network = Annotated[Path, typer.Argument(metavar="NETWORK", help="ONNX file, .onnx or .onnx.gz.", show_default=False)]
Spec = Annotated[Path | None, typer.Argument(metavar="SPEC", help="VNN-LIB file, .vnnlib or .vnnlib.gz.")]
Dataset = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="digits, mnist, cifar10, or an .npz file with x and y.")
]
Index = Annotated[str | None, typer.Option(metavar="RANGE", help="Which inputs: 7, 0:20 or 3,5,10:20.")]
Epsilon = Annotated[str | None, typer.Option(metavar="RADIUS", help="How far an input may move: 0.03 or 8/255.")]
Norm = Annotated[str | None, typer.Option(metavar="inf|2|1", help="Norm of the radius; inf if not given.")]
Targets = Annotated[
    str | None, typer.Option(metavar="all|K", help="Against all other classes (if not given), or class K only.")
]
Mean = Annotated[str | None, typer.Option(metavar="M,..", help="Mean that the network expects to be taken off.")]
Std = Annotated[str | None, typer.Option(metavar="S,..", help="Deviation that it expects to be divided by.")]
NoClip = Annotated[bool, typer.Option("--no-clip", help="Let inputs leave [0, 1].")]
DataDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of mnist and cifar10; else $VERIFIER_DATA, else ./data.")
]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Hard limit of each query; the first one's clock starts with the command."),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, branch-and-bound, ibp, crown-ibp, crown, alpha-crown, k-relu, triangle-lp, refined-lp, "
        "k-relu-lp, milp or auto-lirpa.",
    ),
]
Witness = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the counterexample; of several inputs each to a file: w.txt, w-7.txt."),
]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, max=MOST_THREADS, help="Threads on the CPU.")]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory to compute with, such as 2GiB or 500MB; 4GiB if not given."),
]
Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as JSON; - for standard output.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=LARGEST_SEED, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where to compute.", callback=parse_device)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing: the exit status is the answer.")]
#: of commands whose exit status says no more than that they ran
QuietScreen = Annotated[bool, typer.Option("--quiet", help="Print nothing but what was asked for with -.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an internal error.", callback=_set_debug)]
