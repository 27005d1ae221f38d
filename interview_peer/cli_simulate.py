"""``interview-peer simulate``: the simulator alone, each of its settings a flag.

The flags are made of ``SimulatorSettings``, so that there is none that the admin path and Python do
not have as well.
"""

from __future__ import annotations

import asyncio
import typing
from types import NoneType
from typing import Any

import click
from pydantic import ValidationError

from .errors import ConfigurationError
from .simulator.settings import SimulatorSettings, group_of

OTHERS = "Listening and help"
FROM_ELSEWHERE = frozenset({"api_key"})
"""No flags: a key on a command line can be read by every user of the machine."""


class Flag(click.Option):
    """An option under a heading of the help."""

    group = OTHERS


class GroupedCommand(click.Command):
    """Writes the help of its flags under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every option's help."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "group", OTHERS), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def flag_name(field: str) -> str:
    """How a setting is called on the command line."""
    return f"--{field.replace('_', '-')}"


def flags() -> list[click.Option]:
    """One for each setting, in the settings' order."""
    return [_flag(name) for name in SimulatorSettings.model_fields if name not in FROM_ELSEWHERE]


def settings_from(given: dict[str, Any], api_key: str | None) -> SimulatorSettings:
    """The settings of the flags that were given. Raises ConfigurationError."""
    wanted = {name: value for name, value in given.items() if value is not None}
    try:
        return SimulatorSettings(api_key=api_key, **wanted)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        what = flag_name(str(first["loc"][0])) if first["loc"] else "The flags"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{what}: {message[0].lower()}{message[1:]}.") from None


async def run(settings: SimulatorSettings, host: str, port: int) -> None:
    """Simulate until cancelled; tells on stdout where."""
    # Brings the media libraries along, which the help of other commands need not wait for.
    from .simulator.server import start_simulator

    simulator = await start_simulator(settings, host=host, port=port)
    try:
        click.echo(f"interview_peer's simulator is ready: {simulator.base_url}")
        await asyncio.get_running_loop().create_future()
    finally:
        await simulator.close()


def _flag(name: str) -> click.Option:
    field = SimulatorSettings.model_fields[name]
    kind, is_switch = _kind(field.annotation)
    names = flag_name(name)
    if is_switch:
        names += f"/--no-{name.replace('_', '-')}"
    told = _told(field.default)
    text = f"{field.description}" + (f"  [{told}]" if told else "")
    flag = Flag([names, name], type=kind, default=None, help=text)
    flag.group = group_of(name)
    return flag


def _told(default: object) -> str:
    """A default as the help says it; nothing for a switch that is off and what is not set."""
    if default is None or default is False:
        return ""
    if default is True:
        return "on"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The type of a flag's value, and whether it is a switch."""
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice(typing.get_args(annotation)), False
    if annotation in (bool, int, float, str):
        return annotation, annotation is bool
    for part in typing.get_args(annotation):
        if part is not NoneType:
            # Annotated[int, …] | None: what is annotated comes first.
            return _kind(part)
    raise TypeError(f"no flag can be made of {annotation}")
