"""The reference of the command line, made from the parsers that `mpfnl COMMAND` uses."""

from __future__ import annotations

import argparse
import re
from argparse import Action

from mpfnl.cli.main import COMMANDS, TRAINER_COMMANDS
from mpfnl.cli.parsing import Command

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
HEAD = """Command line
============

Made from the parsers themselves: the same as ``mpfnl COMMAND --help``. Exit status: 0; 1 where some studies
of a cohort failed and the others are done; 2 for input that cannot be used; 130 after Ctrl-C.
"""
TRAINER = """
These are Lightning's own command line over the models and :class:`mpfnl.MultiphaseDataModule`. ``--config``
takes a file or a recipe that ships with the package (``pfnl3d.yaml``, ``rcan3d.yaml``); every argument of
model, data module and Trainer can follow, as ``--model.init_args.features=32``, ``--data.batch_size=4``,
``--trainer.max_epochs=100``. ``mpfnl fit --help`` lists them all; ``mpfnl fit --config pfnl3d.yaml
--print_config`` prints what would be run.
"""


def pages() -> dict[str, str]:
    """The page by its name."""
    parts = [HEAD, *(_command(command) for command in COMMANDS.values())]
    parts.append(_heading(", ".join(f"mpfnl {name}" for name in TRAINER_COMMANDS)) + TRAINER)
    parts += [f"``mpfnl {name}``\n   {_verbatim(text)}\n" for name, text in TRAINER_COMMANDS.items()]
    return {"cli.rst": "\n".join(parts)}


def _command(command: Command) -> str:
    parser = command.parser()
    parts = [
        f".. _cli-{command.name}:\n",
        _heading(f"mpfnl {command.name}"),
        _verbatim(parser.description or ""),
        _block(parser.format_usage()),
        _block((parser.epilog or "").removeprefix("example:").strip()),
        f".. program:: mpfnl {command.name}\n",
    ]
    return "\n".join([*parts, *(_option(action) for action in parser._actions if action.dest != "help")])


def _option(action: Action) -> str:
    value = _value(action)
    names = [f"{name} {value}".strip() for name in action.option_strings] or [action.dest]
    text = [_verbatim(action.help or "")]
    if action.required and action.option_strings:
        text.append("Required.")
    elif action.option_strings and action.nargs != 0 and action.default not in (None, argparse.SUPPRESS):
        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        text.append(f"Default: ``{default}``.")
    return f".. option:: {', '.join(names)}\n\n   {' '.join(text)}\n"


def _value(action: Action) -> str:
    if action.nargs == 0 or not action.option_strings:
        return ""
    value = action.metavar or "{" + ",".join(map(str, action.choices or [action.dest])) + "}"
    return f"{value} ..." if action.nargs == "+" else str(value)


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}\n"


def _block(text: str) -> str:
    return "::\n\n" + "".join(f"   {line}\n" for line in text.strip().splitlines())


def _verbatim(text: str) -> str:
    """Plain help text as reStructuredText, options in it as code."""
    for character in "\\*`_|":
        text = text.replace(character, f"\\{character}")
    return OPTION.sub(r"``\g<0>``", text)
