"""Formulas as MathML, written by docutils as the page is built: no script, no network, no fonts."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml


def written(node, **options) -> str:
    """The formula as MathML; docutils' own error says neither which formula nor which page.

    (Of a formula in a docstring, the formula alone.)
    """
    try:
        return tex2mathml(node.astext(), **options)
    except MathError as error:
        raise ValueError(f"{node.source}:{node.line}: {node.astext()!r}: {error}") from error


def inline(self, node):
    self.body.append(written(node))
    raise nodes.SkipNode


def block(self, node):
    self.body.append(f'<div class="formula">{written(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
