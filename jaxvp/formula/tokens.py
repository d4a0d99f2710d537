"""Text -> tokens, a cursor over them, and errors that show the place.

Every token is a name, a name in backticks, a number or one of the listed operators; a character
that starts none of them ends the reading at once, so that braces, brackets, quotes, comparisons
and control characters never get any further.
"""

import re
from typing import NoReturn

# A formula is written by a person; what is beyond this is an accident or an attack.
MAX_LENGTH, MAX_DEPTH, MAX_OPERATIONS = 20_000, 30, 50

TOKEN = re.compile(
    r"""(?P<space>\s+)
    | `(?P<quoted>[^`]+)`
    | (?P<name>[^\W\d][\w.]*)
    | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<operator>\|\||\*\*|[~+\-*/:^()|,=])""",
    re.VERBOSE,
)
QUOTES = "quotes have no place in a formula: odd names go in backticks, `Body Weight`"
COMPARISONS = "comparisons are not evaluated: make the column in the metadata"
HINTS = {
    "`": "a name in backticks needs both of them and something between",
    ".": "`.` for all other columns is not supported: name the variables",
    "%": "for nesting write a/b or a + a:b",
    "{": "code in braces is never evaluated",
    "[": "indexing is never evaluated: make the column in the metadata",
    "'": QUOTES,
    '"': QUOTES,
    "<": COMPARISONS,
    ">": COMPARISONS,
    "\u2013": "a dash from a text editor? write -",
    "\u2212": "a minus from a text editor? write -",
    "\u00d7": "write * or :",
    "\u223c": "write ~",
}


class FormulaError(ValueError):
    """The text is not a formula. `position` counts from 0; None: it concerns the whole text."""

    def __init__(self, message: str, position: int | None = None):
        super().__init__(message)
        self.position = position


class Tokens:
    """The tokens of a text with a cursor; `variables` collects the names read, in order."""

    def __init__(self, text: str):
        self.text = text
        if len(text) > MAX_LENGTH:
            raise FormulaError(f"the formula has {len(text)} characters; {MAX_LENGTH} are allowed")
        self.variables: dict[str, None] = {}
        self.operations = 0  # in the call that is being read
        self.crossed = 0  # terms crossed so far
        self._depth = self._next = 0
        self._tokens: list[tuple[str, str, int]] = []  # kind, text, position
        position = 0
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                self._unexpected(position)
            kind = str(match.lastgroup)
            if kind != "space":
                self._tokens.append((kind, match[kind], position))
            position = match.end()
        self._tokens.append(("end", "", len(text)))

    # Errors

    def error(self, message: str, position: int | None = None) -> NoReturn:
        """Raise a `FormulaError` that points at a position (the next token's unless given)."""
        position = self.position if position is None else position
        line = "".join(c if c.isprintable() else " " for c in self.text)
        start = max(0, position - 50)
        shown = line[start : position + 30]
        raise FormulaError(
            f"{message}\n    {shown}\n    {' ' * (position - start)}^ position {position + 1}",
            position,
        )

    def expected(self, what: str) -> NoReturn:
        """Raise: something else stands here than the grammar asks for."""
        kind, text, _ = self._tokens[self._next]
        found = "the formula ends" if kind == "end" else f"there is `{text[:40]}`"
        self.error(f"expected {what}, but {found}")

    def _unexpected(self, position: int) -> NoReturn:
        character = self.text[position]
        shown = f"`{character}`" if character.isprintable() else f"U+{ord(character):04X}"
        hint = HINTS.get(character, "odd names go in backticks, `Body Weight`")
        self.error(f"unexpected character {shown} ({hint})", position)

    # The cursor

    @property
    def kind(self) -> str:
        """What comes next: name, quoted, number, operator or end."""
        return self._tokens[self._next][0]

    @property
    def position(self) -> int:
        """Where the next token starts."""
        return self._tokens[self._next][2]

    @property
    def at_end(self) -> bool:
        """True if nothing comes."""
        return self.kind == "end"

    @property
    def at_call(self) -> bool:
        """True if a name and an opening parenthesis come."""
        return self.kind == "name" and self._tokens[self._next + 1][:2] == ("operator", "(")

    @property
    def at_option(self) -> bool:
        """True if ``name =`` comes."""
        return self.kind == "name" and self._tokens[self._next + 1][:2] == ("operator", "=")

    def positions(self, operator: str) -> list[int]:
        """Where an operator stands in the whole text."""
        return [at for kind, text, at in self._tokens if (kind, text) == ("operator", operator)]

    def peek(self, *operators: str) -> bool:
        """True if one of these operators comes."""
        kind, text, _ = self._tokens[self._next]
        return kind == "operator" and text in operators

    def take(self, *operators: str) -> str:
        """The next token if it is one of these operators, otherwise nothing."""
        return self.advance() if self.peek(*operators) else ""

    def advance(self) -> str:
        """The text of the next token, whatever it is."""
        text = self._tokens[self._next][1]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return text

    def variable(self, what: str) -> str:
        """The name of a variable."""
        if self.kind not in ("name", "quoted"):
            self.expected(what)
        quoted, position, name = self.kind == "quoted", self.position, self.advance()
        if not quoted and "__" in name and "." in name:
            self.error(f"`{name[:40]}` looks like Python, and no Python is evaluated", position)
        self.variables.setdefault(name)
        return name

    # Nesting

    def enter(self) -> None:
        """Go one level deeper; Python's own stack must never be the limit."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.error(f"more than {MAX_DEPTH} levels of nesting")

    def leave(self) -> None:
        """Come back from one level."""
        self._depth -= 1

    def open(self) -> int:
        """Read `(`, which is known to come, and return its position."""
        self.enter()
        position = self.position
        self.advance()
        return position

    def close(self, opened: int) -> None:
        """Read the `)` of the parenthesis that was opened there."""
        if self.at_end:
            self.error("this parenthesis is never closed", opened)
        if not self.take(")"):
            self.expected("an operator or `)`")
        self.leave()

    def count_operation(self) -> None:
        """Arithmetic makes a tree as deep as it is long: it, too, has a limit."""
        self.operations += 1
        if self.operations > MAX_OPERATIONS:
            self.error(
                f"more than {MAX_OPERATIONS} operations in a term: make the column in the metadata"
            )
