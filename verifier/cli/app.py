"""The commands and what they share. Nothing heavy is imported here: ``verifier --help`` has to be quick."""

from __future__ import annotations

from typing import Annotated

import typer

from verifier import __version__
from verifier.cli import (
    attack_command,
    compare_command,
    distil_command,
    inspect_command,
    margins_command,
    radius_command,
    train_command,
    verify_command,
    view_command,
)

app = typer.Typer(
    help="Proves, or refutes with a replayed counterexample, that a neural network meets a specification.",
    epilog="Example: verifier verify models/digits_mlp.onnx --dataset digits --index 0:5 --epsilon 0.02",
    rich_markup_mode=None,  # help in plain text spares the import of rich
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"verifier {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Options of the program itself."""


app.command(epilog=verify_command.EPILOG)(verify_command.verify)
app.command(epilog=attack_command.EPILOG)(attack_command.attack)
app.command(epilog=compare_command.EPILOG)(compare_command.compare)
app.command(epilog=inspect_command.EPILOG)(inspect_command.inspect)
app.command(epilog=train_command.EPILOG)(train_command.train)
app.command(epilog=radius_command.EPILOG)(radius_command.radius)
app.command(epilog=view_command.EPILOG)(view_command.view)
margins_command.margins.command(epilog=distil_command.EPILOG)(distil_command.distil)
app.add_typer(margins_command.margins, name="margins")
