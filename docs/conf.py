"""How the documents are built: ``sphinx-build -W -b html docs docs/_build/html``."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import version as _version
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import _state_diagram  # noqa: E402

project = "flowtrio"
author = "The flowtrio authors"
copyright = author
release = version = _version("flowtrio")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Markdown

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings: `name` in them is a name of ours, or only set apart.

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

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
