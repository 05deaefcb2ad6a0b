"""The documentation site: Markdown of this directory, docstrings, the help of the commands, the wire's schemas.

Built without a network: ``python -m sphinx -W --keep-going -n docs SITE``. A warning is an error in ``.ci/run``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import orchclient

project = "orchclient"
author = "the authors of orchclient"
copyright = "the authors, Apache License 2.0"  # noqa: A001  the name that Sphinx reads
version = release = orchclient.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "command_examples",
    "docstring_examples",
    "schema_tables",
    "public_names",
]
exclude_patterns = ["_ext", "examples"]
root_doc = "index"
smartquotes = False  # --help is typed with two hyphens, also in the middle of a sentence

# Markdown. Headings are anchors, so that a link to one that is gone is a warning.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# `json schema=x.json`, `text answered`: the word behind the language is for the tests that read the page.
myst_fence_as_directive: list[str] = []

# Docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

# Nitpicky: every name in a signature is documented here, or is the standard library's, or says only which methods an
# argument needs (the last line).
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(abc|collections|contextlib|datetime|enum|logging|os|pathlib|sqlite3|types|typing|threading)\..*"),
    (
        "py:.*",
        r"(AbstractContextManager|Any|AnyClient|Callable|Coroutine|Iterable|Mapping|Self|Sequence|Path|Counter|TracebackType|Protocol|[PSTU])",
    ),
    ("py:.*", r"orchclient\..*\.[PSTU]"),
    ("py:.*", r"hypothesis\..*"),
    ("py:.*", r"orchclient\.(recovery\.AnyTask|escalating\.Escalating|testing\.humans\.Hand(le|ed))"),
]

html_theme = "furo"
html_title = f"orchclient {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7cc0ea", "color-brand-content": "#7cc0ea"},
}
