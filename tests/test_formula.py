"""The grammar: what is read, how it is named, what is refused and where.

Oracles: formulaic's own parser for the algebra of terms, Python's `ast` for the text of calls.
"""

import ast
import builtins
import pickle

import formulaic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvp.formula import Formula, FormulaError
from jaxvp.formula.calls import FUNCTIONS

READ = [  # text, fixed, random, names, variables
    (
        "~ Age + (1|Individual) + (1|Tissue)",
        "1 + Age",
        ("(1|Individual)", "(1|Tissue)"),
        ("Individual", "Tissue"),
        ("Age", "Individual", "Tissue"),
    ),
    ("~1", "1", (), (), ()),
    ("~ (1|b:a)", "1", ("(1|b:a)",), ("b:a",), ("b", "a")),
    ("~ (1|a/b)", "1", ("(1|a)", "(1|b:a)"), ("a", "b:a"), ("a", "b")),
    ("~ (1|a/b/c)", "1", ("(1|a)", "(1|b:a)", "(1|c:b:a)"), ("a", "b:a", "c:b:a"), ("a", "b", "c")),
    ("~ (1|a:b/c)", "1", ("(1|a:b)", "(1|c:a:b)"), ("a:b", "c:a:b"), ("a", "b", "c")),
    ("~0 + a + (1 | g)", "0 + a", ("(1|g)",), ("g",), ("a", "g")),
    ("~ a - 1", "0 + a", (), (), ("a",)),
    ("~ -1 + a", "0 + a", (), (), ("a",)),
    ("~ a + b - b + (1|c)", "1 + a", ("(1|c)",), ("c",), ("a", "c")),
    ("~ (a + (1|g)) + b", "1 + a + b", ("(1|g)",), ("g",), ("a", "g", "b")),
    ("~ b:a + a:b + a", "1 + a + b:a", (), (), ("b", "a")),
    ("~\n  `Body Weight` +\tBody.Weight + Größe_2", "1 + `Body Weight` + `Body.Weight` + Größe_2")
    + ((), (), ("Body Weight", "Body.Weight", "Größe_2")),
    ("~ (1|`my group`:h)", "1", ("(1|`my group`:h)",), ("my group:h",), ("my group", "h")),
    ("~ log(`Body Weight`+1)", "1 + log(`Body Weight` + 1)", (), (), ("Body Weight",)),
    ("~ `a:b` + `1` + `class`", "1 + `a:b` + `1` + `class`", (), (), ("a:b", "1", "class")),
    ("~ I(z^2) + I( z ** 2 )", "1 + I(z ** 2)", (), (), ("z",)),
    ("~ I(-z^2)+I((-z)^2)", "1 + I(-z ** 2) + I((-z) ** 2)", (), (), ("z",)),
    ("~ scale(x, TRUE, scale=F)", "1 + scale(x, True, scale=False)", (), (), ("x",)),
    ("~ poly(x,degree=2)*f", "1 + poly(x, degree=2) + f + poly(x, degree=2):f", (), (), ("x", "f")),
    ("~ bs(log(x), 5) + factor(b) + C(c)", "1 + bs(log(x), 5) + factor(b) + C(c)", (), ())
    + (("x", "b", "c"),),
]


@pytest.mark.parametrize("text, fixed, random, names, variables", READ, ids=[r[0] for r in READ])
def test_reads(text, fixed, random, names, variables):
    formula = Formula.parse(text)
    assert formula.text == text
    assert formula.fixed == fixed
    assert tuple(term.text for term in formula.random) == random
    assert tuple(term.name for term in formula.random) == names
    assert formula.variables == variables
    assert formula.intercept == fixed.startswith("1")
    assert all(term.intercept and not term.slopes and term.correlated for term in formula.random)


@pytest.mark.parametrize(
    "text, slopes, intercept, correlated, canonical",
    [
        ("(1+x|g)", ("x",), True, True, "(1 + x|g)"),
        ("(x|g)", ("x",), True, True, "(1 + x|g)"),
        ("(x||g)", ("x",), True, False, "(1 + x||g)"),
        ("(0+f|g)", ("f",), False, True, "(0 + f|g)"),
        ("(f+0|g)", ("f",), False, True, "(0 + f|g)"),
        ("(x*log(y)|g)", ("x", "log(y)", "x:log(y)"), True, True, "(1 + x + log(y) + x:log(y)|g)"),
        ("(1||g)", (), True, True, "(1|g)"),
    ],
)
def test_slopes_are_terms_of_their_own(text, slopes, intercept, correlated, canonical):
    (term,) = Formula.parse(f"~ {text}").random
    assert (term.slopes, term.intercept, term.correlated) == (slopes, intercept, correlated)
    assert (term.group, term.name, term.text) == (("g",), "g", canonical)
    assert Formula.parse(f"~ {canonical}").random == (term,)


def test_slopes_of_nested_groups_and_their_variables():
    formula = Formula.parse("~ b + (1 + x|a/b) + y - b")
    assert [term.text for term in formula.random] == ["(1 + x|a)", "(1 + x|b:a)"]
    assert [term.group for term in formula.random] == [("a",), ("b", "a")]
    assert formula.variables == ("b", "x", "a", "y")  # b is no fixed term, but still read


# The algebra of terms, against formulaic's parser

NAMES = st.sampled_from(["a", "b", "c", "d", "log(a)", "I(b ** 2)", "`a b`"])
SUMS = st.recursive(
    NAMES,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+*:/"), inner),
        st.builds("({} + e)^{}".format, inner, st.integers(1, 3)),
    ),
    max_leaves=6,
)


def terms_of(text):
    return [set(str(f).strip("`") for f in t.factors) for t in formulaic.Formula(text)]


@given(st.lists(SUMS, min_size=1, max_size=4), st.sampled_from(["", " - 1", " + 0"]))
def test_terms_are_formulaics(parts, end):
    text = " + ".join(parts) + end
    assert terms_of(Formula.parse(f"~ {text}").fixed) == terms_of(text)


@given(SUMS)
def test_fixed_part_reads_as_itself(text):
    formula = Formula.parse(f"~ {text}")
    again = Formula.parse(f"~ {formula.fixed}")
    assert (again.terms, again.fixed) == (formula.terms, formula.fixed)
    assert hash(again.terms) == hash(formula.terms)


@pytest.mark.parametrize("text", ["a*b*c - a:b:c", "a*b - a", "a*b - b:a + (c + d)^2 - c"])
def test_removed_terms_are_formulaics(text):
    assert terms_of(Formula.parse(f"~ {text}").fixed) == terms_of(text)


# The text of calls, against Python

ARITHMETIC = st.recursive(
    st.sampled_from(["x", "y", "2", "0.5", "1e3", ".5", "007", "log(x)", "scale(x, scale=False)"]),
    lambda inner: st.one_of(
        st.builds("{}{}{}".format, inner, st.sampled_from(["+", "-", "*", "/", "**"]), inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("sqrt( {} )".format, inner),
    ),
    max_leaves=8,
)


@given(ARITHMETIC)
def test_calls_are_written_as_python_writes_them(text):
    formula = Formula.parse(f"~ I(x + {text})")
    python = ast.parse(f"I(x + {text.replace('007', '7')})", mode="eval")
    assert formula.fixed == f"1 + {ast.unparse(python)}"


# What is refused

REFUSED = [  # text, position, and what the message says
    ("", None, "empty"),
    ("  \n", None, "empty"),
    ("~", None, "nothing follows"),
    ("~ 0", None, "no term at all"),
    ("Age + (1|g)", 0, "starts with `~`"),
    ("y ~ Age", 2, "has a response, `y`"),
    ("log(y) ~ Age", 7, "leave out what stands before `~`"),
    ("~ a ~ b", 4, "one `~`"),
    ("~ a +", 5, "expected a variable, but the formula ends"),
    ("~ a b", 4, "expected an operator, but there is `b`"),
    ("~ a + * b", 6, "expected a variable, but there is `*`"),
    ("~ a)", 3, "expected an operator"),
    ("~ (a + b", 2, "never closed"),
    ("~ (1|g", 2, "never closed"),
    ("~ log(a", 5, "never closed"),
    ("~ log(a b)", 8, "expected an operator or `)`"),
    ("~ 1a", 3, "expected an operator, but there is `a`"),
    ("~ a + `b", 6, "both of them"),
    ("~ ``", 2, "both of them"),
    ("~ a == b", 4, "expected an operator"),
    ("~ .", 2, "name the variables"),
    ("~ a %in% b", 4, "a + a:b"),
    ("~ a \u2212 b", 4, "write -"),
    ("~ na\u0308me", 4, "backticks"),
    ("~ a\x00", 3, "U+0000"),
    ("~ 2 * a", 2, "I(2 * x)"),
    ("~ a:1", 4, "0 and 1 can only be added"),
    ("~ (a + 1)*b", 2, "0 and 1 can only be added"),
    ("~ z^2", 2, "write I(z^2)"),
    ("~ (a + b)^z", 10, "whole number"),
    ("~ (a + b)^0", 10, "whole number"),
    ("~ (a + b)^1.5", 10, "whole number"),
    ("~ a - b", 6, "`b` is not there"),
    ("~ 3", 2, "no term"),
    # functions
    ("~ lg(z)", 2, "did you mean log"),
    ("~ log10(z)", 2, "did you mean log1p"),
    ("~ np.log(z)", 2, "did you mean log"),
    ("~ qqqq(z)", 2, "There are I, log"),
    ("~ I(2)", 2, "reads no variable"),
    ("~ log()", 6, "expected a variable or a number"),
    ("~ log(a, 2)", 9, "it has none"),
    ("~ scale(a, ddof=0)", 11, "its options are center, scale"),
    ("~ scale(a, scale=1)", 17, "True or False"),
    ("~ poly(a, 2, degree=3)", 13, "twice"),
    ("~ poly(a, 2, True, 3)", 19, "no such option"),
    ("~ poly(a, degree=b)", 17, "from 1 to 20"),
    ("~ poly(a, 21)", 10, "from 1 to 20"),
    ("~ poly(a, " + "9" * 5000 + ")", 10, "from 1 to 20"),
    ("~ bs(a, df=2)", 2, "df >= degree"),
    ("~ C(a, contr.sum)", 7, "order the categories"),
    ("~ C(log(a))", 7, "expected an operator"),
    ("~ log(poly(a, 2))", 6, "cannot stand inside"),
    ("~ I(1e999 * a)", 4, "too large"),
    # random terms
    ("~ a | g", 4, "in parentheses"),
    ("~ (1|g) * a", 2, "can only be added"),
    ("~ a:(1|g)", 4, "can only be added"),
    ("~ ((1|g))^2", 2, "can only be added"),
    ("~ a - (1|g)", 6, "leave it out"),
    ("~ ((1|g) | h)", 2, "inside a random term"),
    ("~ (0|g)", 2, "nothing varies"),
    ("~ (1|)", 5, "expected a grouping variable"),
    ("~ (1|1)", 5, "expected a grouping variable"),
    ("~ (1|a*b)", 6, "(1|a:b)"),
    ("~ (1|a+b)", 6, "(1|a) + (1|b)"),
    ("~ (1|g|h)", 6, "right of the bar"),
    ("~ (1|factor(g))", 5, "categories there anyway"),
    ("~ (1|a:b:a)", 5, "with itself"),
    ("~ (1|a/a)", 5, "in itself"),
]


@pytest.mark.parametrize("text, position, says", REFUSED, ids=[repr(r[0])[:40] for r in REFUSED])
def test_refuses_and_shows_where(text, position, says):
    with pytest.raises(FormulaError) as caught:
        Formula.parse(text)
    assert says in str(caught.value)
    assert caught.value.position == position
    if position is not None:
        message, line, caret = str(caught.value).split("\n")
        column = caret.index("^")
        assert caret.endswith(f"position {position + 1}")
        shown = text[position : position + 1]
        assert line[column : column + 1] == (shown if shown.isprintable() else " ")


@pytest.mark.parametrize("other", [None, 1, b"~ a", ["~ a"]])
def test_refuses_what_is_no_text(other):
    with pytest.raises(FormulaError, match=f"not {type(other).__name__}"):
        Formula.parse(other)


PYTHON = [
    "~ lambda: 0",
    "~ z.sum()",
    "~ z.__class__",
    "~ z.__class__.__mro__[1].__subclasses__()",
    "~ __import__('os').system('id')",
    "~ __import__(os)",
    "~ I(__import__(os))",
    "~ I(z.values.__class__)",
    "~ I((lambda: z)())",
    "~ I(z if z else z)",
    "~ I([x for x in z])",
    "~ I(z[0])",
    "~ I(z := 3)",
    "~ I(z and z)",
    "~ I(z == z)",
    "~ I(z, z)",
    "~ I(*z)",
    "~ I(**z)",
    "~ I(~z)",
    "~ I(z @ z)",
    "~ I(z // z)",
    "~ I(z % 2)",
    "~ I(0x10 * z)",
    "~ I(1_000 * z)",
    "~ I(1j * z)",
    "~ I(f'{z}')",
    "~ I('a' + z)",
    "~ I(log)(z)",
    "~ log(z)(z)",
    "~ log(z).sum()",
    "~ `log`(z)",
    "~ eval(z)",
    "~ exec(z)",
    "~ np.log(z)",
    "~ contr.treatment(z)",
    "~ C(z, contr.treatment(1))",
    "~ C(z, levels=z)",
    "~ hashed(z)",
    "~ lag(z)",
    "~ cr(z, df=4)",
    "~ Q('z')",
    "~ {z}",
    "~ {z.__class__}",
    "~ {__import__('os')}",
    "~ `z` {z}",
    '~ "z"',
    "~ z; z",
    "~ z \\ z",
    "~ z # z",
    "~ z\n~ z",
    "~ z | z",
    "~ [z ~ z]",
    "~ z ~ z | z",
    "~ (1|{z})",
    "~ (1|z.__class__)",
    "~ (log(z)(1)|g)",
    "~ (1|g.map(len))",
    "~ poly(z, degree=z.size)",
    "~ poly(z, (2))",
    "~ poly(z, -1)",
    "~ bs(z, knots=[1, 2])",
    "~ scale(z, _state=z)",
    "~ scale(z, **z)",
    "~ scale(data=z)",
]


@pytest.mark.parametrize("text", PYTHON)
def test_refuses_python(text, monkeypatch):
    def evaluated(*args, **kwargs):
        raise AssertionError("evaluated")

    with monkeypatch.context() as patch:
        for name in ("eval", "exec", "compile"):
            patch.setattr(builtins, name, evaluated)
        with pytest.raises(FormulaError):
            Formula.parse(text)


def test_backticks_only_quote():
    """What stands in backticks is a name, however much it looks like code."""
    text = "{__import__('os')}[0] + lambda: (1|g) \\"
    assert Formula.parse(f"~ `{text}`").variables == (text,)


@pytest.mark.parametrize(
    "text, says",
    [
        ("~ " + "(" * 5000, "levels of nesting"),
        ("~ " + "(" * 5000 + "a" + ")" * 5000, "levels of nesting"),
        ("~ log(" + "sqrt(" * 3000 + "a", "levels of nesting"),
        ("~ I(" + "-" * 5000 + "a)", "levels of nesting"),
        ("~ I(a" + "**a" * 5000 + ")", "levels of nesting"),
        ("~ I(a" + "+a" * 5000 + ")", "operations in a term"),
        ("~ I(a" + "*a" * 5000 + ")", "operations in a term"),
        ("~ " + "*".join(f"x{i}" for i in range(2000)), "1000 terms"),
        ("~ (" + "+".join(f"x{i}" for i in range(40)) + ")^99", "1000 terms"),
        ("~ (" + "+".join(f"x{i}" for i in range(900)) + ")^2", "too many interactions"),
        ("~ (" + "+".join(f"x{i}" for i in range(900)) + ")^99999999999", "from 1 to 99"),
        ("~ " + "+".join(f"x{i}" for i in range(1001)), "1000 terms"),
        ("~ " + "a + " * 10000 + "a", "characters"),
        ("~ " + "(a+b+c+d+e+f+g+h)^99 + " * 500 + "a", "too many interactions"),
        ("~ (1|" + "/".join(f"x{i}" for i in range(1000)) + ")", "20 variables in a grouping"),
        ("~ (1|" + ":".join(f"x{i}" for i in range(1000)) + ")", "20 variables in a grouping"),
    ],
    ids=lambda value: value[:12],
)
def test_limits(text, says):
    with pytest.raises(FormulaError, match=says):
        Formula.parse(text)


def test_long_formulas_within_the_limits():
    names = [f"variable_{i}" for i in range(1000)]
    assert len(Formula.parse("~ " + " + ".join(names)).terms) == 1000
    assert len(Formula.parse("~ (a + b + c + d + e + f + g + h + i)^99").terms) == 2**9 - 1
    assert Formula.parse("~ " + "a + " * 4000 + "a").fixed == "1 + a"


PIECES = [*"abz01~+-*/:^()|,=`.{}[]'\"% \n\\_é", "**", "||", "(1|", *FUNCTIONS, "__", "1e9", "TRUE"]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.booleans())
def test_any_text_is_a_formula_or_a_formula_error(text, tilde):
    text = "~" * tilde + text
    try:
        formula = Formula.parse(text)
    except FormulaError as error:
        assert error.position is None or 0 <= error.position <= len(text)
    else:
        assert all(name in text for name in formula.variables)
        assert Formula.parse(f"~ {formula.fixed} + (1|g)").terms == formula.terms


@given(st.text(max_size=30))
def test_any_unicode_is_a_formula_or_a_formula_error(text):
    try:
        assert Formula.parse("~" + text).text == "~" + text
    except FormulaError as error:
        assert str(error)


def test_formulas_and_errors_travel_between_processes():
    formula = Formula.parse("~ scale(a):b + (1|g)")
    assert pickle.loads(pickle.dumps(formula)) == formula
    with pytest.raises(FormulaError) as caught:
        Formula.parse("~ a +")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.position) == (str(caught.value), 5)
