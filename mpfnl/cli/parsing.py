"""Parsers of the commands: names, types and help come from the signature and docstring of a function.

jsonargparse's own `add_function_arguments` writes `--batch_size`, `--small {true,false}` and Python types
into the help; here an option is `--batch-size`, a flag is a flag, and the help is plain.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, Namespace

from mpfnl.cli.degradation import preset_names
from mpfnl.phases import Phase

VERBOSE = "--verbose"


class _HelpFormatter(argparse.HelpFormatter):
    """Says a default where there is one, and nothing of Python types; breaks no line within a name."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        if action.default in (None, argparse.SUPPRESS) or not action.option_strings:
            return text
        default = action.default
        if isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, list):
            default = " ".join(map(str, default))
        return f"{text} (default: {default})"


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    A keyword parameter `phase` that is a list of NAME=FILE gets a shorthand `--NAME FILE` for each contrast
    phase.

    Args:
        function: Function to run. Keyword-only parameters become options, the others positional arguments.
        example: Line that a person can copy.
        choices: Functions that list the values of a parameter, by parameter name.
    """

    function: Callable[..., None]
    example: str
    choices: Mapping[str, Callable[[], Iterable[str]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the command, which is that of the function."""
        return self.function.__name__

    @property
    def summary(self) -> str:
        """One line of help: the first line of the docstring."""
        return parse_docstring(self.function.__doc__ or "").short_description or ""

    def parser(self) -> ArgumentParser:
        """Parser of the parameters."""
        documented = parse_docstring(self.function.__doc__ or "")
        texts = {parameter.arg_name: parameter.description or "" for parameter in documented.params}
        described = "\n\n".join(filter(None, [documented.short_description, documented.long_description]))
        parser = ArgumentParser(
            prog=f"mpfnl {self.name}",
            description=described,
            epilog=f"example:  {self.example}",
            formatter_class=_HelpFormatter,
        )
        hints = get_type_hints(self.function)
        hints |= {name: Literal[tuple(values())] for name, values in self.choices.items()}
        for parameter in inspect.signature(self.function).parameters.values():
            _add(parser, parameter, hints[parameter.name], texts[parameter.name])
        text = "Tell also which files in a DICOM folder were passed over."
        parser.add_argument(VERBOSE, action="store_true", help=text)  # `mpfnl.cli.main` sees to it
        if self._takes_phases:
            for phase in Phase:
                text = f"{phase.label.capitalize()} scan; short for --phase {phase}=FILE."
                parser.add_argument(_option(phase.value), type=Path, metavar="FILE", help=text)
        return parser

    def run(self, arguments: list[str]) -> None:
        """Parses the arguments and calls the function."""
        parsed: Namespace = self.parser().parse_args(arguments)
        names = inspect.signature(self.function).parameters
        values = {name: parsed[name] for name in names}
        if self._takes_phases:
            short = [f"{phase}={parsed[phase]}" for phase in Phase if parsed[phase] is not None]
            values["phase"] = [*(values["phase"] or []), *short]
        self.function(**values)

    @property
    def _takes_phases(self) -> bool:
        hint = get_type_hints(self.function).get("phase")
        return any(get_origin(choice) is list for choice in (hint, *get_args(hint)))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add(parser: ArgumentParser, parameter: inspect.Parameter, hint: Any, text: str) -> None:
    text = " ".join(text.split())
    if _PRESETS in text:
        text = text.replace(_PRESETS, preset_names())
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        parser.add_argument(parameter.name, type=hint, help=text)
        return
    option = _option(parameter.name)
    names = ["-o", option] if parameter.name == "output" else [option]
    required = parameter.default is inspect.Parameter.empty
    if hint is bool:
        parser.add_argument(*names, action="store_true", help=text)
        return
    default = None if required else parameter.default
    extra: dict[str, Any] = {}
    lists = [choice for choice in get_args(hint) if get_origin(choice) is list]
    if lists:  # a list, or None where none is given
        (hint,) = lists
    if get_origin(hint) is list:
        (hint,) = get_args(hint)
        extra |= {"nargs": "+", "action": "extend"} if default is None else {"nargs": "+"}
    choices = [name for each in get_args(hint) if get_origin(each) is Literal for name in get_args(each)]
    if choices:
        extra["metavar"] = f"{{{','.join(choices)}}}"
    elif get_origin(hint) is not Literal:
        extra["metavar"] = _METAVARS.get(parameter.name, "FILE" if "Path" in str(hint) else "N")
    parser.add_argument(*names, type=hint, default=default, required=required, help=text, **extra)


_PRESETS = "{presets}"  # in an argument's text: the registered presets; reading them imports torch

_METAVARS = {
    "weights": "PATH",
    "max_memory": "GB",
    "models": "NAME=WEIGHTS",
    "enhanced": "NAME=FOLDER",
    "structure": "NAME",
    "nsd_tolerance": "MM",
    "output": "PATH",
    "device": "DEVICE",
    "misalignment": "X",
    "masks": "FOLDER",
    "steps": "STEP",
    "preset": "NAME",
    "degradation": "NAME",
    "phase": "NAME=FILE",
    "study": "ID",
    "scheduler": "ADDRESS",
}
