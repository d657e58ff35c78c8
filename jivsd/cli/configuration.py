"""The configuration: show, check; and reading it for the commands that need it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jivsd.cli.command import FLAG, DataDir, group, local
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer
from jivsd.places import ConfigError

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.config import Config

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration, a TOML file. Default: $JIVSD_CONFIG."),
]

UNIT_PROGRAM = "/opt/jivsd/bin/jivsd"
"""Where the units in `systemd/` expect the program."""

commands = group("Show or check the configuration.")


def read_config(file: Path | None, flags: dict[str, Any]) -> "Config":
    """Read and check the configuration.

    Raises:
        CommandError: something is wrong with it; the message has a line for each problem.
    """
    from jivsd.config import load

    try:
        return load(file, flags)
    except ConfigError as error:
        raise CommandError(Exit.INVALID, "config", _sentence(error), data={"problems": error.problems}) from None


@local(commands, "show", "jivsd config show", "jivsd config show --config /etc/jivsd/jivsd.toml --json")
def show(config: ConfigFile = None, data_dir: DataDir = None) -> Answer:
    """Show every setting, its value, and where that came from. Secrets are not shown."""
    from jivsd.config import describe

    settings = describe(read_config(config, {"data_dir": data_dir}))

    def view() -> "Page":
        from jivsd.cli import look

        table = look.table("KEY", "VALUE", "FROM", "MEANING", wraps=("VALUE", "FROM", "MEANING"))
        for setting in settings:
            table.add_row(setting.key, setting.value, setting.source, setting.help)
        return [table]

    return Answer({"items": [setting._asdict() for setting in settings], "next": None}, view)


@local(commands, "check", "jivsd config check --config /etc/jivsd/jivsd.toml && systemctl restart jivsd")
def check(config: ConfigFile = None, data_dir: DataDir = None) -> Answer:
    """Check the configuration without starting anything. Exit code 1 if something is wrong."""
    from jivsd.config import load

    problems: list[str] = []
    try:
        load(config, {"data_dir": data_dir})
    except ConfigError as error:
        problems = error.problems
    return checked(problems, "The configuration is good.")


@local(
    commands,
    "unit",
    "jivsd config unit > /etc/systemd/system/jivsd.service",
    "jivsd config unit --template > '/etc/systemd/system/jivsd@.service'",
)
def unit(
    template: Annotated[bool, typer.Option("--template", metavar=FLAG, help="For several daemons on a host.")] = False,
) -> Answer:
    """Print the unit with which systemd runs this installation of jivsd."""
    name = "jivsd@.service" if template else "jivsd.service"
    text = _bundled(name).replace(UNIT_PROGRAM, str(Path(sys.prefix) / "bin" / "jivsd"))
    return Answer({"name": name, "text": text}, text.splitlines)


@local(commands, "example", "jivsd config example > /etc/jivsd/jivsd.toml")
def example() -> Answer:
    """Print a configuration to begin with."""
    text = _bundled("jivsd.toml")
    return Answer({"name": "jivsd.toml", "text": text}, text.splitlines)


def _bundled(name: str) -> str:
    from jivsd.resources import bundled

    return (bundled("systemd") / name).read_text()


def checked(problems: list[str], good: str) -> Answer:
    """The answer of a command that looks for problems."""
    return Answer(
        {"ok": not problems, "problems": problems}, lambda: problems or [good], Exit.FAILED if problems else Exit.OK
    )


def _sentence(error: ConfigError) -> str:
    if len(error.problems) == 1:
        return error.problems[0]
    return "\n  ".join([f"{len(error.problems)} things are wrong with the configuration:", *error.problems])
