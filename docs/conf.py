"""Sphinx builds the documentation (`make docs`); the notebooks among the pages are run on the way.

Nothing is kept between builds but JAX's compiled programs: a page shows what the code of today
answers. Warnings are errors, and so is an exception in a cell.
"""

import importlib
import os
import sys
from pathlib import Path

import jaxvp

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # mathml

# Kernels and commands inherit these: pages that fit models of the same shape compile them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XDG_CACHE_HOME"] = str(HERE / "_build" / "cache")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(jaxvp.enable_compile_cache())
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# A page is no place for what XLA and matplotlib say on a busy or a new machine.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
importlib.import_module("matplotlib.font_manager")  # makes its cache

project = "jaxvp"
copyright = "The jaxvp authors, Apache-2.0"
version = release = jaxvp.__version__

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"
exclude_patterns = ["_build"]
default_role = "code"  # in docstrings, single backticks are names of code
templates_path: list[str] = []

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # a busy machine compiles slowly
nb_merge_streams = True

napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "none"  # docstrings say it in words
autodoc_member_order = "bysource"

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "jaxvp"
html_static_path = ["_static"]
html_css_files = ["jaxvp.css"]
html_show_sourcelink = False
# Only the lessons have pages beside them.
html_sidebars = {path.stem: [] for path in HERE.glob("*.md")}
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
}
