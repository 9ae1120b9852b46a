"""The command ``verifier``: from arguments to an exit status; every error is one line."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from verifier.errors import InputError
from verifier.process import tune

if TYPE_CHECKING:
    from typer import TyperException

    from verifier.cli.session import Session

BAD_INPUT = 2
#: a bug of ours, as in BSD's sysexits.h; 1 would read as "falsified"
BUG = 70
INTERRUPTED = 130
OUTPUT_CLOSED = 141


def main() -> NoReturn:
    """Entry point of the console script: runs the command line and ends the process with its status (see `run`).

    The process leaves without the interpreter's farewell: a query that was given up at its time limit may still be
    running in its thread, and even without one torch takes up to a second to be taken down.
    """
    started = monotonic()
    tune()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # those of libraries are for developers: -W default shows them
    from verifier.cli.session import Session

    status = run(sys.argv[1:], Session(started))
    sys.stderr.flush()
    os._exit(status)


def run(arguments: Sequence[str], session: Session) -> int:
    """Run one command line in this process; what it prints is flushed.

    Returns:
        0, 1 or 3 as the command says; 2 for bad usage or input, with one line on stderr; 70 for a bug of ours; 130
        when interrupted; 141 when whoever read the output went away.
    """
    from typer import TyperException
    from typer.main import get_command

    from verifier.cli.app import app

    try:
        status = get_command(app).main(list(arguments), prog_name="verifier", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return status or 0
    except InputError as error:
        return _say(str(error), BAD_INPUT)
    except TyperException as error:
        return _say(_usage(error), BAD_INPUT)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer turns the first into the second, whose 1 would read as "falsified"
        return OUTPUT_CLOSED
    except Exception as error:
        if session.debug:
            traceback.print_exc()
        mend = "this is a bug, please report it with what the same command prints with --debug"
        return _say(f"internal error: {type(error).__name__}: {error}; {mend}", BUG)


def _say(message: str, status: int) -> int:
    print("verifier: " + " ".join(message.split()), file=sys.stderr)
    return status


def _usage(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "verifier"
    return f"command line: {error.format_message().rstrip('.')}; see {command} --help"
