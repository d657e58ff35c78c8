"""The command line. Modules by noun; what a command needs is imported when it runs: every command starts fast."""

from __future__ import annotations

import sys
import tempfile
import traceback
from io import TextIOWrapper
from typing import TYPE_CHECKING, cast

from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import complain, say
from jivsd.masking import masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typer.exceptions import TyperException

    from jivsd.cli.command import Globals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see `jivsd.cli.exits`). No traceback reaches the user."""
    import typer
    from typer.exceptions import TyperException
    from typer.main import get_command

    from jivsd.cli.app import app
    from jivsd.cli.command import Globals

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    json = "--json" in arguments
    given = Globals()
    try:
        result = get_command(app)(arguments, prog_name="jivsd", standalone_mode=False, obj=given)
    except CommandError as error:
        if given.debug:
            traceback.print_exc()
        complain(error, json=json)
        return error.exit_code
    except typer.Abort:
        return Exit.INTERRUPTED
    except TyperException as error:
        return _wrong_usage(error, json=json)
    except Exception as error:
        return _bug(error, given, json=json)
    return result if isinstance(result, int) else Exit.OK


def _wrong_usage(error: TyperException, *, json: bool) -> int:
    """Say what is wrong with the command line itself, and where its help is."""
    if message := error.format_message():  # it is empty when the help was shown instead
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "jivsd"
        complain(CommandError(Exit.USAGE, "usage", message, hint=f"Help: {path} --help"), json=json)
    return Exit.USAGE


def _bug(error: Exception, given: Globals, *, json: bool) -> int:
    """Write the details of what should not have happened into a file, and say in one line where they are."""
    details = masked("".join(traceback.format_exception(error)))
    if given.debug:
        say(details)
    with tempfile.NamedTemporaryFile("w", prefix="jivsd-bug-", suffix=".txt", delete=False) as file:
        file.write(details)
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    message = f"a bug in jivsd: {masked(f'{type(error).__name__}: {error}')}; the details are in {file.name}"
    complain(CommandError(Exit.BUG, "bug", " ".join(message.split()), data={"details": file.name}), json=json)
    return Exit.BUG
