"""How the documents are built: ``sphinx-build -W -b html docs docs/_build/html``."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import version as _version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import _corridor  # noqa: E402
import _run_picture  # noqa: E402
import _state_diagram  # noqa: E402

project = "flowtrio"
author = "The flowtrio authors"
copyright = author
release = version = _version("flowtrio")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# The builtin `type` in a signature is taken for one of the attributes of that name; and Pygments
# cannot read all of TSX, which `tsc` reads in the tests.
suppress_warnings = ["ref.python", "misc.highlighting_failure"]

# Markdown

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings: `name` in them is a name of ours, or only set apart.

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "inherited-members": "Exception, Struct, str, AsyncIterator, Generic, object",
}

# Pages

html_theme = "furo"
html_title = "flowtrio"
html_show_sphinx = False
html_show_copyright = False


def _let_doors_tell_of_their_names() -> None:
    """Show autodoc where the names that a door hands on were written.

    Such a name says that its door is its module, so its fields' docstrings, which stand in no
    object, would be looked for in the door's source.
    """
    for door, path in {
        "flowtrio": "__init__.py",
        "flowtrio.testing": "testing/__init__.py",
    }.items():
        told = ModuleAnalyzer.for_module(door)
        told.analyze()
        for node in ast.walk(ast.parse((HERE.parent / "flowtrio" / path).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowtrio."):
                home = ModuleAnalyzer.for_module(node.module or "")
                home.analyze()
                told.attr_docs |= home.attr_docs
                told.annotations |= home.annotations
                told.overloads |= home.overloads
                told.tagorder |= home.tagorder


_let_doors_tell_of_their_names()
_state_diagram.write()
_corridor.write()
_run_picture.write()


def _read_sections(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Turn "Args:" and the like into fields.

    Napoleon as an extension would also take "Word: text" in a property's docstring for its type.
    """
    what = "function" if what in ("attribute", "data", "property") else what
    config = Config(napoleon_use_rtype=False)
    lines[:] = GoogleDocstring(list(lines), config, app, what, name, obj, options).lines()


def _shorten_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: Any, signature: str | None, result: str
) -> tuple[str | None, str] | None:
    """Write defaults that have no short form of their own so that they can be read."""
    if signature is None:
        return None
    signature = re.sub(r"<(?:built-in )?function (\w+)>", r"\1", signature)
    for long, short in (("NOTHING", "..."), ("<factory>", "..."), ("~typing.", "")):
        signature = signature.replace(long, short)
    return signature, result


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _read_sections)
    app.connect("autodoc-process-signature", _shorten_defaults)
