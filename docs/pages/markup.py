"""How docstrings are read: single backticks, names of types, the first line of a property."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
COLON, HIDDEN = ":", "\ue000"


def plain_aliases(
    app: Sphinx,
    what: str,
    name: str,
    value: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Sphinx's event `autodoc-process-signature`: an alias inside of a type stands there by its name."""
    return signature and ALIAS.sub(r"\1", signature), returns and ALIAS.sub(r"\1", returns)


def hide_colons(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Napoleon would take what stands before a colon in a property's text for its type."""
    if what in ("property", "attribute", "data"):
        lines[:] = [line.replace(COLON, HIDDEN) for line in lines]


def show_colons(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Undoes `hide_colons`."""
    lines[:] = [line.replace(HIDDEN, COLON) for line in lines]


class CodeOrLink(SphinxRole):
    """The role of `text` without a role: code, and a link where it is a name that the reference has."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """A literal, inside of a reference where it may be one."""
        code = nodes.literal(self.rawtext, self.text, classes=["code"])
        if not NAME.fullmatch(self.text):
            return [code], []
        reference = pending_xref(
            "",
            code,
            refdomain="py",
            reftype="obj",
            reftarget=self.text,
            refdoc=self.env.docname,
            refexplicit=False,
            refwarn=False,
            refspecific=self.text[0].isupper(),  # a class, wherever it is; not every `study` or `phases`
            **{"py:module": self.env.ref_context.get("py:module")},
            **{"py:class": self.env.ref_context.get("py:class")},
        )
        return [reference], []
