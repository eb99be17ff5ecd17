"""Sphinx builds the site from here: `make docs`.

Pages that follow from the code (the reference of the API and of the command line) and pages that live
elsewhere in the repository (notebooks, changes) are written into `docs/_generated/` at the start of a build.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

from pages import api, command_line, copied, folder, markup  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import mpfnl  # noqa: E402

project = "mpfnl"
author = "The mpfnl authors"
project_copyright = author
version = release = mpfnl.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.githubpages",
]
exclude_patterns = ["_build", "figures", "**.ipynb_checkpoints"]
templates_path: list[str] = []
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # single backticks: a link where there is something to link to
    ("py:.*", r"(?!mpfnl\b).*"),  # other projects
    ("py:class", r"mpfnl\.(samples\.\w+|window\.Intensities)"),  # not public
    ("py:.*", r"mpfnl(\.\w+){2,}\.\w+"),  # modules inside of the rooms are private: shown without a link
]
suppress_warnings = ["ref.python"]  # `Phase` is listed by mpfnl and by mpfnl.phases: either will do
default_role = "code_or_link"
toc_object_entries_show_parents = "hide"

myst_heading_anchors = 4
myst_links_external_new_tab = False
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in api.TYPE_ALIASES}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"mpfnl {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False


def _write_pages(app: Sphinx) -> None:
    folder.write(DOCS / "_generated", {**copied.pages(), **api.pages(), **command_line.pages()})


def setup(app: Sphinx) -> dict[str, bool]:
    """Tells Sphinx what is done before and while it reads."""
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", copied.point_into_the_site)
    app.connect("autodoc-process-signature", markup.plain_aliases)
    app.connect("autodoc-process-docstring", markup.hide_colons, priority=400)  # Napoleon's is 500
    app.connect("autodoc-process-docstring", markup.show_colons, priority=600)
    app.add_role("code_or_link", markup.CodeOrLink())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
