"""The module order of the design, and what `import jaxvp` may cost.

A module imports only from modules to its left in ORDER, imports inside functions counted too.
What is around the chain is listed with all that it may import; nothing in the chain imports that.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxvp"

ORDER = [
    *("warning", "memory", "threads", "runtime", "target", "formula", "design", "expression"),
    "statistics",
    *("likelihood", "solver", "batch", "fractions", "functional", "prediction", "collinearity"),
    *("checks", "results", "executors", "study", "progress", "api", "runs", "plots", "reporting"),
]
# "jaxvp" is the package itself: its public names.
AROUND = {
    "datasets": set(),
    "simulation": set(),
    "config": set(),
    "sklearn": {"integrations"},
    "tl": {"integrations"},
    "pp": {"integrations"},
    "integrations": {
        *("jaxvp", "design", "expression", "formula", "prediction", "results", "warning"),
    },
    "cli": {
        *("jaxvp", "config", "datasets", "executors", "expression", "formula", "plots", "results"),
        *("runs", "simulation"),
    },
}
ALLOWED = {name: set(ORDER[:i]) for i, name in enumerate(ORDER)} | AROUND
# The rest of the package sees arrays.
KNOW_PANDAS = {
    *("formula", "design", "expression", "collinearity", "checks", "results", "api", "runs"),
    *("plots", "reporting"),
    *AROUND,
}
HEAVY = ["pandas", "matplotlib", "pyarrow", "formulaic", "scipy.stats", "tqdm", "click", "jinja2"]
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def place(path: Path) -> str:
    """The name under which a file stands in the order: `solver` for `solver/newton.py`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree: ast.AST, package: list[str]):
    """Dotted names of all that a file imports at run time, relative ones made absolute."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *(node.module or "").split(".")]
            yield from (".".join(filter(None, [*base, alias.name])) for alias in node.names)
        yield from imported(node, package)


def imports_of(path: Path) -> list[list[str]]:
    package = list(path.parent.relative_to(PACKAGE.parent).parts)
    return [name.split(".") for name in imported(ast.parse(path.read_text()), package)]


def siblings(path: Path) -> set[str]:
    """The modules of this package that a file imports, by their names in the order."""
    inside = [parts for parts in imports_of(path) if parts[0] == "jaxvp"]
    names = {parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "jaxvp" for parts in inside}
    return names - {place(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_left(path):
    assert place(path) in ALLOWED, "a new module: give it its place in ORDER or AROUND"
    assert siblings(path) <= ALLOWED[place(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_edges_know_pandas(path):
    if place(path) not in KNOW_PANDAS:
        assert not [parts for parts in imports_of(path) if parts[0] == "pandas"]


def test_the_walk_sees_lazy_and_relative_imports(tmp_path, monkeypatch):
    """The test above can fail: every way of writing an import is seen."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "jaxvp")
    folder = tmp_path / "jaxvp" / "solver"
    folder.mkdir(parents=True)
    (folder / "newton.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from jaxvp.plots import violins\n"
        "from .. import batch\n"
        "from .loop import step\n"
        "import numpy, jaxvp.results\n"
        "def f():\n    if True:\n        from ..api import fit\n        import jaxvp\n"
    )
    assert siblings(folder / "newton.py") == {"batch", "results", "api", "jaxvp"}


def test_import_is_light():
    """`import jaxvp` stays close to `import jax`: no table, figure or file library comes along."""
    code = "import jaxvp, sys; print([m for m in sys.argv[1:] if m in sys.modules])"
    command = [sys.executable, "-c", code, *HEAVY]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_import_leaves_jax_settings_alone():
    """The caller's ML program lives in the same process."""
    code = (
        "import jax; before = dict(jax.config.values); import jaxvp;"
        "print({k for k, v in jax.config.values.items() if before.get(k) != v})"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
