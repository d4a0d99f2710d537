"""The pages of the repository and the code blocks in them, for the tests that run what they say.

A block is fenced and says its language. What cannot run here has a comment in the line before,
``<!-- not run: the reason -->``. A page that is a notebook (``file_format: mystnb``) is run by the
build of the documentation.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?"
    r"^(?P<fence>```+|:::+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)[ ]*$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    language: str
    text: str
    reason: str | None
    """why it is not run"""
    line: int


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, directives of Sphinx (``{toctree}``) and colon fences among them."""
    text = page.read_text()
    return [
        Block(
            found["language"].strip(),
            found["text"],
            found["reason"],
            text.count("\n", 0, found.start("fence")) + 2,
        )
        for found in _BLOCK.finditer(text)
    ]


def is_notebook(page: Path) -> bool:
    return page.read_text().startswith("---\nfile_format: mystnb\n")


def runnable(page: Path) -> list[Block]:
    """The blocks that a reader would type, in order; of a notebook those for a shell."""
    languages = ("bash",) if is_notebook(page) else ("python", "bash")
    return [b for b in blocks(page) if b.language in languages and b.reason is None]
