"""The figures beside the violins: what the artists hold, and that nothing is cut off."""

import dataclasses
import functools
import inspect
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from containers import Lookalike
from fractions_to_draw import NAMES, results, table
from matplotlib import image as pictures
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import sparse
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform

import jaxvp
from jaxvp.expression import align
from jaxvp.plots import legends, structure
from jaxvp.plots.against_mean import trend
from jaxvp.plots.canvas import shorten
from jaxvp.plots.correlations import join
from jaxvp.plots.effects import adjust
from jaxvp.plots.palette import RESIDUAL_GREY, darker, palette
from jaxvp.plots.simpson import slopes

LONG = [
    "Tissue[T.Brain - Frontal Cortex (BA9)]",
    "Plate:Sequencing_run:Centre_of_collection_of_all",
]
TWENTY = [f"Component {i}" for i in range(17)] + [*LONG, "Residuals"]
COUNTS = {"1": ["Residuals"], "5": NAMES, "20": TWENTY}
FORMULA = "~ Age + (1|Site) + (1|Plate:Site) + (1|Tissue)"


def study():
    random = np.random.default_rng(8)
    n = 60
    metadata = pd.DataFrame(
        {
            "Age": random.integers(20, 80, n),
            "Site": np.repeat([*"abc"], 20),
            "Plate": [f"p{i}" for i in np.repeat(np.arange(6), 10)],
            "Tissue": [*"xyz"] * 20,
            "Group": pd.Categorical(np.resize(["low", "high"], n), ["low", "high"]),
        },
        index=[f"s{i}" for i in range(n)],
    )
    y = 8 + random.normal(size=(n, 8)) + 0.03 * metadata[["Age"]].to_numpy()
    for name, scale in (("Site", 1.5), ("Plate", 0.8), ("Tissue", 1.0)):
        codes = metadata[name].factorize()[0]
        y += scale * random.normal(size=(codes.max() + 1, 8))[codes]
    y[:, 7] = 5.0
    genes = [f"gene{i}" for i in range(8)]
    # Samples in another order than those of the metadata.
    order = random.permutation(n)
    return pd.DataFrame(y, index=metadata.index, columns=genes).iloc[order], metadata


@pytest.fixture(scope="module")
def fitted():
    expression, metadata = study()
    return jaxvp.fit(expression, FORMULA, metadata), expression, metadata


def plain(function):
    """Without the checks of annotations that only tests have: they would speak first."""
    if inspect.ismethod(function):
        return functools.partial(inspect.unwrap(function.__func__), function.__self__)
    return inspect.unwrap(function)


def names_of(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def points(ax):
    """The lines that are points: their data and colours."""
    return [
        (*line.get_data(), to_hex(line.get_color()).upper())
        for line in ax.lines
        if line.get_marker() == "o"
    ]


def check_all_inside(figure):
    """Nothing that is drawn reaches beyond the paper."""
    figure.canvas.draw()
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


# Bars


def widths(ax):
    """Of every row from above, by component: where it starts, its share, its colour."""
    rows = {}
    for patch in ax.patches:
        row = round(patch.get_y() + patch.get_height() / 2)
        rows.setdefault(row, []).append(
            (patch.get_x(), patch.get_width(), to_hex(patch.get_facecolor()).upper())
        )
    return [rows[row] for row in sorted(rows)]


@pytest.mark.parametrize("wrap", [results, lambda fractions: fractions], ids=["result", "table"])
def test_bars_are_the_shares(wrap):
    fractions = table(30)[["Residuals", "Tissue", "Age", "Batch", "Subject"]]
    ax = jaxvp.pl.bars(wrap(fractions), ["g7", "g2", "g11"])
    order = ["Tissue", "Age", "Batch", "Subject", "Residuals"]
    for gene, row in zip(["g7", "g2", "g11"], widths(ax), strict=True):
        shown = {colour: width for _, width, colour in row}
        for name, colour in palette(order).items():
            assert np.isclose(shown[colour], 100 * fractions.loc[gene, name])
    starts = {colour: x for x, _, colour in widths(ax)[0]}
    assert [n for n in sorted(order, key=lambda n: starts[palette(order)[n]])][-1] == "Residuals"
    low, high = ax.get_ylim()
    assert low > high, "the first gene is on top"
    assert names_of(ax.yaxis) == ["g7", "g2", "g11"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == order
    assert to_hex(ax.get_legend().get_patches()[-1].get_facecolor()).upper() == RESIDUAL_GREY
    assert ax.get_xlim() == (0, 100)


def test_bars_add_up_to_all():
    for row in widths(jaxvp.pl.bars(table(9))):
        ends = [x + width for x, width, _ in row]
        np.testing.assert_allclose([x for x, _, _ in row], [0, *ends[:-1]], atol=1e-9)
        assert np.isclose(ends[-1], 100)


def test_a_failed_gene_has_its_status_in_place_of_a_bar():
    fractions = table(3)
    fractions.iloc[1] = np.nan
    ax = jaxvp.pl.bars(results(fractions, "zero_variance"))
    (text,) = ax.texts
    assert text.get_text() == "not fitted: zero_variance" and text.get_position()[1] == 1
    assert len(widths(ax)) == 2 and names_of(ax.yaxis) == ["g0", "g1", "g2"]


def test_top_genes_start_with_the_component():
    fractions = table(40)
    fractions.iloc[3] = np.nan
    result = results(fractions)
    ax = jaxvp.pl.top_genes(result, "Batch", 6)
    expected = fractions["Batch"].nlargest(6)
    assert names_of(ax.yaxis) == list(expected.index) == list(result.top("Batch", 6).index)
    first = [row[0] for row in widths(ax)]
    np.testing.assert_allclose([width for _, width, _ in first], 100 * expected)
    assert {colour for *_, colour in first} == {palette(NAMES)["Batch"]}
    pd.testing.assert_frame_equal(result.top("Batch", 6), fractions.loc[expected.index])
    assert len(result.top("Batch", 99)) == 39
    assert list(result.top("Residuals", 1).columns) == NAMES


def test_equal_shares_stand_in_the_order_of_the_input():
    fractions = pd.DataFrame({"a": [0.0, 0.5, 0, 0.5]}, index=[*"wxyz"])
    assert list(results(fractions).top("a", 4).index) == [*"xzwy"]


# Comparison and means


def test_compare_is_gene_by_gene():
    one = table(50)
    other = table(60, zeros=0.1)[NAMES[::-1]].iloc[::-1].drop(columns="Batch")
    other.loc["g7"] = np.nan
    figure = jaxvp.pl.compare(results(one), results(other), labels=("ML", "RE$ML"))
    assert [ax.get_title() for ax in figure.axes] == ["Age", "Subject", "Tissue", "Residuals"]
    genes = [gene for gene in one.index if gene != "g7"]
    for ax in figure.axes:
        ((x, y, colour),) = points(ax)
        name = ax.get_title()
        np.testing.assert_allclose(x, 100 * one.loc[genes, name])
        np.testing.assert_allclose(y, 100 * other.loc[genes, name])
        own = palette(NAMES)[name]
        assert colour == (darker(own) if name == "Residuals" else own)
        apart = 100 * (one[name] - other[name]).abs()
        assert f"most {apart.max():.2g}" in ax.texts[0].get_text()
    assert figure.get_supxlabel() == "Variance explained, ML"


def test_means_of_the_model_and_of_the_data(fitted):
    result, expression, _ = fitted
    names = ["gene0", "gene3"]
    by_hand = jaxvp.pl.components_against_mean(result, expression.mean(), components="Site")
    anndata = Lookalike(sparse.csr_matrix(expression.to_numpy()), expression, expression.columns)
    for given in (expression, expression.T, expression.to_numpy(), anndata):
        figure = jaxvp.pl.components_against_mean(result, given, components=["Site"])
        (one, *_), (other, *_) = (points(f.axes[0]) for f in (figure, by_hand))
        np.testing.assert_allclose(one[0], other[0])
        np.testing.assert_allclose(one[1], 100 * result.fractions["Site"].dropna())
    figure = jaxvp.pl.components_against_mean(result)
    assert [ax.get_title() for ax in figure.axes] == list(result.fractions.columns)
    expected = result.coefficients.loc[names] @ result.design.X.mean(axis=0)
    np.testing.assert_allclose(points(figure.axes[0])[0][0][[0, 3]], expected)
    only = jaxvp.pl.components_against_mean(result.fractions, expression, components="Age")
    assert len(only.axes) == 1


def test_the_trend_is_the_median_of_bins():
    x = np.arange(40.0)
    centres, medians = trend(x, x**2)
    assert len(centres) == 4
    np.testing.assert_allclose(centres, [4.5, 14.5, 24.5, 34.5])
    np.testing.assert_allclose(medians[0], np.median(x[:10] ** 2))
    assert trend(x[:1], x[:1]) == (0, 0)


# Correlations


def correlated(k=6, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(size=(30, k))
    values[:, k // 2 :] += 2 * values[:, [0]]
    names = [f"v{i}" for i in range(k)]
    return pd.DataFrame(np.abs(np.corrcoef(values.T)).reshape(k, k), names, names)


def test_the_heat_map_is_the_table():
    given = correlated()
    ax = jaxvp.pl.correlations(given)
    shown = names_of(ax.xaxis)
    assert shown == names_of(ax.yaxis) and sorted(shown) == sorted(given.index)
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), given.loc[shown, shown])
    assert image.get_clim() == (0, 1)
    assert sorted(shown.index(name) for name in ("v0", "v3", "v4", "v5")) in (
        [0, 1, 2, 3],
        [1, 2, 3, 4],
        [2, 3, 4, 5],
    )
    assert {text.get_text() for text in ax.texts} == {f"{v:.2f}" for v in given.to_numpy().flat}
    tree = ax.child_axes[0]
    heights = {round(max(line.get_ydata()), 9) for line in tree.lines}
    distance = squareform(1 - given.to_numpy(), checks=False)
    assert heights == set(np.unique(cophenet(linkage(distance, "average"))).round(9))


def test_the_order_of_variables_can_stay():
    given = correlated()
    ax = jaxvp.pl.correlations(given, cluster=False)
    assert names_of(ax.xaxis) == list(given.columns)
    np.testing.assert_allclose(ax.images[0].get_array(), given)


def test_pairs_without_a_correlation_join_last():
    given = correlated()
    given.iloc[1, 2] = given.iloc[2, 1] = np.nan
    ax = jaxvp.pl.correlations(given)
    assert np.ma.getmaskarray(np.ma.masked_invalid(ax.images[0].get_array())).sum() == 2
    assert "" in {text.get_text() for text in ax.texts}
    tree = join(np.array([[1, np.nan], [np.nan, 1.0]]))
    assert max(tree.heights[0]) == 1 and tree.x[0] == [0, 0, 1, 1]


def test_canonical_correlations_can_be_drawn(fitted):
    metadata = fitted[2]
    with pytest.warns(UserWarning):
        given = jaxvp.canonical_correlations("~ Age + Site + Plate + Tissue", metadata)
    assert len(jaxvp.pl.correlations(given).images) == 1


# Correlation structure


def covariance(result, gamma):
    Z = [np.eye(code.max() + 1)[code] for code in result.design.codes]
    return np.eye(result.design.n) + sum(g * z @ z.T for g, z in zip(gamma, Z, strict=True))


def test_structure_is_that_of_the_covariance(fitted):
    result = fitted[0]
    gamma = result.theta.loc["gene2"].to_numpy() ** 2
    V = covariance(result, gamma)
    expected = V / np.sqrt(np.outer(V.diagonal(), V.diagonal()))
    ax = jaxvp.pl.correlation_structure(result, "gene2", sort=False)
    np.testing.assert_allclose(ax.images[0].get_array(), expected, atol=1e-12)
    median = result.theta.median().to_numpy() ** 2
    V = covariance(result, median)
    ax = jaxvp.pl.correlation_structure(result, sort=False)
    np.testing.assert_allclose(ax.images[0].get_array(), V / V[0, 0], atol=1e-12)
    assert ax.get_title(loc="left").startswith("Median of the genes")


def test_structure_of_some_terms(fitted):
    result = fitted[0]
    gamma = result.theta.loc["gene2"] ** 2
    code = result.design.codes[list(gamma.index).index("Site")]
    expected = (code[:, None] == code) * gamma["Site"] / (1 + gamma.sum())
    np.fill_diagonal(expected, 1)
    ax = jaxvp.pl.correlation_structure(result, "gene2", "Site", sort=False)
    np.testing.assert_allclose(ax.images[0].get_array(), expected)


def test_samples_of_a_level_stand_together(fitted):
    result = fitted[0]
    gamma = result.theta.loc["gene2"]
    code = result.design.codes[list(gamma.index).index(gamma.idxmax())]
    drawn = jaxvp.pl.correlation_structure(result, "gene2").images[0].get_array()
    sizes = np.cumsum(np.bincount(code))[:-1]
    blocks = np.split(np.asarray(drawn), sizes)
    for block, columns in zip(blocks, np.split(np.arange(len(code)), sizes), strict=True):
        assert block[:, columns].min() >= gamma.max() ** 2 / (1 + (gamma**2).sum()) - 1e-12


# A gene without some terms


def test_adjusted_is_without_the_other_terms(fitted):
    result, expression, metadata = fitted
    measured = align(expression, metadata)[0]
    y = expression.loc[metadata.index, "gene1"].to_numpy()
    b, theta = (t.loc["gene1"].to_numpy() for t in (result.coefficients, result.theta))
    residual = np.linalg.solve(covariance(result, theta**2), y - result.design.X @ b)
    names = dict(
        zip(result.design.random_names, zip(result.design.codes, theta, strict=True), strict=True)
    )

    def part(name):
        code, t = names[name]
        z = np.eye(code.max() + 1)[code]
        return t**2 * z @ z.T @ residual

    def expected(*own):
        kept = residual + sum(part(name) for name in own)
        return kept - kept.mean() + y.mean()

    # Plates have names of their own: `Plate` groups as `Plate:Site` does.
    for shown, own in {
        ("Tissue",): ["Tissue"],
        ("Plate",): ["Plate:Site"],
        ("Site", "Plate"): ["Site", "Plate:Site"],
        ("Group",): [],
    }.items():
        found = adjust(measured, result, "gene1", list(shown), metadata)
        # Residuals have mean zero here only up to what the random terms share.
        np.testing.assert_allclose(found, expected(*own) + 0 * y, atol=1e-8)
    found = adjust(measured, result, "gene1", ["Age"], metadata)
    kept = residual + b[1] * metadata["Age"]
    np.testing.assert_allclose(found, kept - kept.mean() + y.mean(), atol=1e-8)


# Strata


def test_strata_hold_their_samples(fitted):
    _, expression, metadata = fitted
    y = expression.loc[metadata.index, "gene4"]
    ax = jaxvp.pl.stratify(expression.T, metadata, "gene4", "Tissue")
    assert names_of(ax.xaxis) == [*"xyz"]
    for place, (level, (x, values, _)) in enumerate(zip("xyz", points(ax), strict=True)):
        np.testing.assert_array_equal(values, y[metadata.Tissue == level])
        assert (np.abs(x - place) < 0.42).all()
        box = ax.patches[place].get_path().vertices[:, 1]
        np.testing.assert_allclose([box.min(), box.max()], np.percentile(values, [25, 75]))


def test_strata_of_two_variables(fitted):
    _, expression, metadata = fitted
    y = expression.loc[metadata.index, "gene4"]
    lacking = metadata.assign(Tissue=metadata.Tissue.where(metadata.index != "s0"))
    ax = jaxvp.pl.stratify(expression, lacking, "gene4", ["Tissue", "Group"])
    expected = [(t, g) for t in "xyz" for g in ("low", "high")]
    for (tissue, group), (x, values, _) in zip(expected, points(ax), strict=True):
        own = (lacking.Tissue == tissue) & (lacking.Group == group)
        np.testing.assert_array_equal(values, y[own])
        assert (x < "xyz".index(tissue)).all() == (group == "low")
    colours = [colour for *_, colour in points(ax)]
    assert len(set(colours)) == 2 and colours[:2] == colours[2:4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["low", "high"]


def test_nested_levels_close_ranks(fitted):
    _, expression, metadata = fitted
    ax = jaxvp.pl.stratify(expression, metadata, "gene4", ["Site", "Plate"])
    places = [x.mean().round(0) for x, *_ in points(ax)]
    assert places == [0, 0, 1, 1, 2, 2]
    assert len({colour for *_, colour in points(ax)}) == 6


def test_strata_of_a_model(fitted):
    result, expression, metadata = fitted
    ax = jaxvp.pl.stratify(expression, metadata, "gene1", "Tissue", result=result, adjusted=True)
    adjusted = adjust(align(expression, metadata)[0], result, "gene1", ["Tissue"], metadata)
    found = np.concatenate([values for _, values, _ in points(ax)])
    np.testing.assert_allclose(np.sort(found), np.sort(adjusted))
    assert {colour for *_, colour in points(ax)} == {palette(result.fractions.columns)["Tissue"]}
    share = result.fractions.loc["gene1", "Tissue"]
    assert ax.get_title(loc="left") == f"gene1: Tissue {share:.0%}"
    assert ax.get_ylabel() == "Expression, adjusted"


# Simpson's paradox


def test_the_slope_changes_its_sign():
    expression, metadata = jaxvp.datasets.simpson()
    lines = slopes(expression, metadata, "reversed", "Age", "Centre")
    y = expression.loc["reversed"].to_numpy()
    slope, intercept = np.polyfit(metadata["Age"], y, 1)
    np.testing.assert_allclose(lines.pooled, (intercept, slope))
    assert slope > 0.03 and lines.slope < -0.03
    within = (metadata["Age"] - metadata.groupby("Centre")["Age"].transform("mean")).to_numpy()
    assert np.isclose(lines.slope, within @ y / (within @ within), atol=2e-3)
    ax = jaxvp.pl.simpson(expression, metadata, "reversed", "Age", "Centre")
    found = np.concatenate([values for _, values, _ in points(ax)])
    np.testing.assert_array_equal(found, y)
    straight = [line for line in ax.lines if line.get_marker() != "o"]
    rises = [np.diff(line.get_ydata())[0] / np.diff(line.get_xdata())[0] for line in straight]
    np.testing.assert_allclose(rises, [lines.slope] * 5 + [slope])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [f"all: {slope:+.3g}", f"within: {lines.slope:+.3g}", *"ABCDE"]
    steady = slopes(expression, metadata, "steady", "Age", "Centre")
    assert abs(steady.pooled[1] - steady.slope) < 0.01


def test_simpson_is_the_same_each_time():
    one, other = jaxvp.datasets.simpson(), jaxvp.datasets.simpson()
    pd.testing.assert_frame_equal(one[0], other[0])
    assert one[0].shape == (2, 80) and list(one[1].columns) == ["Age", "Centre"]
    pd.testing.assert_index_equal(one[0].columns, one[1].index)
    assert one[1].groupby("Centre").size().to_dict() == dict.fromkeys("ABCDE", 16)


# All figures


def draw_all(names, ax=None, figure=None):
    fractions = table(300, names)
    square = correlated(len(names))
    square = square.set_axis(names, axis=0).set_axis(names, axis=1)
    mean = fractions.iloc[:, 0] * 10
    one, many = {"ax": ax}, {"figure": figure}
    return {
        "violins": lambda: jaxvp.pl.violins(fractions, **one),
        "bars": lambda: jaxvp.pl.bars(fractions.iloc[:7], **one),
        "one bar": lambda: jaxvp.pl.bars(fractions.iloc[:1], **one),
        "top_genes": lambda: jaxvp.pl.top_genes(fractions, names[0], 5, **one),
        "correlations": lambda: jaxvp.pl.correlations(square, **one),
        "compare": lambda: jaxvp.pl.compare(fractions, fractions, **many),
        "means": lambda: jaxvp.pl.components_against_mean(fractions, mean, **many),
    }


# Twenty panels take seconds, and are made as five are.
TWENTY_PANELS = [("compare", "20"), ("means", "20")]
MANY = [(figure, count) for figure in draw_all(NAMES) for count in COUNTS]
MANY = [case for case in MANY if case not in TWENTY_PANELS]
MANY += [pytest.param(*case, marks=pytest.mark.slow) for case in TWENTY_PANELS]


@pytest.mark.parametrize(("figure", "count"), MANY)
def test_nothing_is_cut_off(figure, count):
    made = draw_all(COUNTS[count])[figure]()
    check_all_inside(made if isinstance(made, Figure) else made.figure)


def test_nothing_of_the_model_is_cut_off(fitted):
    result, expression, metadata = fitted
    long = metadata.assign(**{LONG[0]: [f"A level with a long name {i}" for i in range(12)] * 5})
    for made in (
        jaxvp.pl.correlation_structure(result, "gene1"),
        jaxvp.pl.stratify(expression, metadata, "gene1", "Tissue", result=result),
        jaxvp.pl.stratify(expression, long, "gene1", LONG[0]),
        jaxvp.pl.stratify(expression, long, "gene1", ["Tissue", LONG[0]]),
    ):
        check_all_inside(made.figure)


@pytest.mark.parametrize("figure", draw_all(NAMES))
def test_what_is_given_is_drawn_into(figure):
    whole = Figure(figsize=(7, 6))
    ax = None if figure in ("compare", "means") else whole.subplots()
    made = draw_all(NAMES, ax, whole)[figure]()
    assert made is (ax or whole)


@pytest.mark.parametrize("figure", draw_all(NAMES))
def test_a_column_of_a_page_cuts_nothing_off(figure):
    """Names, titles and legends are as long as there is room for, and no longer."""
    whole = Figure(figsize=(3.5, 3.2), layout="constrained")
    FigureCanvasAgg(whole)
    ax = None if figure in ("compare", "means") else whole.subplots()
    draw_all([*LONG, "Medication[T.beta-blockers, low dose]", *NAMES[-2:]], ax, whole)[figure]()
    check_all_inside(whole)


def check_legible(ax, width=0.4, height=0.3):
    """No name lies on another, no letters are below 5 points, and the data have their room."""
    figure = ax.figure
    check_all_inside(figure)
    names = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    names = [name for name in names if name.get_visible()]
    legend = ax.get_legend()
    names += [] if legend is None else [*legend.get_texts(), legend.get_title()]
    names = [name for name in names if name.get_text()]
    assert min((name.get_fontsize() for name in names), default=5) >= 5
    # Slanted ones are as far apart as their lines; of the others what is drawn counts.
    slanted = [name for name in names if name.get_rotation() == 45]
    anchors = [ax.transData.transform(name.get_position())[0] for name in slanted]
    apart = 72 / figure.dpi * np.sqrt(0.5) * np.diff(anchors)
    assert not slanted or apart.min() >= 0.95 * slanted[0].get_fontsize()
    boxes = [n.get_window_extent().extents for n in names if n.get_rotation() != 45]
    boxes = np.array(boxes).reshape(-1, 4)
    low, high = boxes[:, None, :2], boxes[None, :, 2:]
    over = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))
    over[np.eye(len(over), dtype=bool)] = 0
    # Lines of text may touch: what is above and below the letters is part of a box.
    assert (over.min(axis=-1) <= 0.25 * 5 / 72 * figure.dpi).all() or not len(boxes)
    box = ax.get_window_extent()
    assert box.width > width * figure.bbox.width and box.height > height * figure.bbox.height
    if legend is not None:
        assert not box.padded(-1).overlaps(legend.get_window_extent().padded(-1))


def in_a_column(size=(3.4, 2.6)):
    """Axes of half the width of a page."""
    whole = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(whole)
    return whole.subplots()


def crowd():
    """25 people, three tissues, 150 samples, one gene."""
    n = 150
    metadata = pd.DataFrame(
        {
            "Individual": [f"Individual_{i // 6:02}" for i in range(n)],
            "Tissue": np.resize(["blood", "liver", "muscle"], n),
            "Sample": [f"{i // 2:02}" for i in range(n)],
            "Centre": [f"Centre {i // 6}, department of clinical neuroscience" for i in range(n)],
        },
        index=[f"s{i}" for i in range(n)],
    )
    y = np.random.default_rng(2).normal(size=(n, 1))
    return pd.DataFrame(y, metadata.index, ["ENSG00000187608"]), metadata, "ENSG00000187608"


GROUPS = [
    ["Individual", "Tissue"],
    ["Tissue", "Individual"],
    ["Sample"],
    pytest.param(["Centre", "Tissue"], marks=pytest.mark.slow),
    pytest.param(["Tissue", "Centre"], marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    "size",
    [(3.4, 2.6), *(pytest.param(s, marks=pytest.mark.slow) for s in ((5, 3.2), (7.2, 4)))],
    ids=["column", "middle", "page"],
)
@pytest.mark.parametrize("by", GROUPS, ids=" x ".join)
def test_many_groups_are_legible(by, size):
    """25 x 3 of them in half the width of a page, too; a new figure has room for all names."""
    ax = jaxvp.pl.stratify(*crowd(), by, ax=in_a_column(size))
    check_legible(ax)
    if by == ["Tissue", "Individual"]:
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert names == sorted(set(crowd()[1]["Individual"]))


@pytest.mark.slow
@pytest.mark.parametrize("by", GROUPS, ids=" x ".join)
def test_a_new_figure_has_room_for_all_names(by):
    ax = jaxvp.pl.stratify(*crowd(), by)
    check_legible(ax)
    assert names_of(ax.xaxis) == [shorten(name) for name in sorted(set(crowd()[1][by[0]]))]


@pytest.mark.parametrize("figure", ["violins", "bars", "top_genes", "correlations"])
def test_twenty_components_are_legible_in_a_column(figure):
    check_legible(draw_all(TWENTY, in_a_column())[figure]())


@pytest.mark.parametrize("figure", ["compare", "means"])
def test_panels_are_legible_in_a_column(figure):
    """Numbers stand at the outer panels alone, all of which have the same axes."""
    whole = Figure(figsize=(3.4, 2.6), layout="constrained")
    FigureCanvasAgg(whole)
    draw_all([*NAMES[:2], *LONG, "Residuals"], figure=whole)[figure]()
    for i, ax in enumerate(whole.axes):
        check_legible(ax, 0.15, 0.2)
        shown = [axis.get_tick_params()[f"label{side}"] for axis, side in sides(ax)]
        assert shown == [i in (0, 3), i in (2, 3, 4)]


def sides(ax):
    return (ax.yaxis, "left"), (ax.xaxis, "bottom")


def test_samples_are_named_legibly_in_a_column():
    ax = in_a_column()
    structure._draw(ax, np.eye(36), [f"GTEX-sample-{i:03}" for i in range(36)], own=False)
    check_legible(ax)


def test_a_legend_without_room_counts():
    names = [f"Patient {i}" for i in range(90)]
    plan = legends.plan(names, "Patient", (3.4, 2.6))
    assert (plan.names, plan.title, plan.beside) == ([], "Patient: 90 levels", 0)
    assert legends.plan(["a", "b"], "Sex", (3.4, 2.6)).above == 0
    above = legends.plan(["a", "b"], "Sex", (3.4, 2.6), groups=25)
    assert above.beside == 0 and above.columns == 2 and above.names == ["a", "b"]
    ax = in_a_column()
    legends.draw(ax, [], plan)
    assert not ax.get_legend().get_texts()


def test_a_dollar_is_a_dollar_in_all():
    names = ["$\\frac$", "a$b", "Residuals"]
    for draw in draw_all(names).values():
        made = draw()
        (made if isinstance(made, Figure) else made.figure).canvas.draw()


def test_a_notebook_shows_what_is_returned():
    for draw in draw_all(NAMES).values():
        made = draw()
        assert made._repr_png_().startswith(b"\x89PNG")
        break
    assert jaxvp.pl.compare(table(5), table(5))._repr_png_().startswith(b"\x89PNG")
    assert not hasattr(jaxvp.pl.violins(table(5), ax=Figure().subplots()), "_repr_png_")


@pytest.mark.slow  # `test_plots` sees to violins, in the quick tests
def test_pyplot_is_left_alone():
    """It is not even imported, and no backend is chosen."""
    code = (
        "import os; os.environ.pop('MPLBACKEND', None); os.environ.pop('DISPLAY', None)\n"
        "import sys, matplotlib, test_figures as t\n"
        "for draw in t.draw_all(t.NAMES).values(): draw()\n"
        "e, m = t.jaxvp.datasets.simpson()\n"
        "t.jaxvp.pl.stratify(e, m, 'steady', 'Centre')\n"
        "import tempfile\n"
        "with tempfile.TemporaryDirectory() as f: t.jaxvp.report(t.results(t.FEW), f + '/r.html')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert matplotlib.rcParams._get_backend_or_none() is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, done.stderr


# Pictures: what no list of artists says, such as what lies on top of what.

PICTURES = Path(__file__).parent / "pictures"


def picture(draw):
    figure = Figure(figsize=(3, 2.4), dpi=50)
    ax = figure.subplots()
    draw(ax)
    # Letters differ from one version of a font library to the next.
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    ax.set_title("", loc="left")
    for artist in [*ax.texts, *filter(None, [ax.get_legend()])]:
        artist.set_visible(False)
    for inset in ax.child_axes:
        inset.set(xlabel="", ylabel="", xticks=[], yticks=[])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return pictures.imread(buffer)[..., :3]


MAIN = {
    "violins": lambda ax: jaxvp.pl.violins(table(), ax=ax),
    "bars": lambda ax: jaxvp.pl.bars(table(8), ax=ax),
    "stratify": lambda ax: jaxvp.pl.stratify(*study(), "gene2", ["Tissue", "Group"], ax=ax),
    "correlations": lambda ax: jaxvp.pl.correlations(correlated(), ax=ax),
}


@pytest.mark.parametrize("name", MAIN)
def test_pictures_are_those_that_were_looked_at(name):
    """`python tests/test_figures.py` draws them anew."""
    found, expected = picture(MAIN[name]), pictures.imread(PICTURES / f"{name}.png")[..., :3]
    assert found.shape == expected.shape
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.04


# Bad input

FEW = table(5)
pl = jaxvp.pl
EMPTY, FAILED = results(FEW.iloc[:0]), results(FEW * np.nan, "zero_variance")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        *((f, (EMPTY,), "no rows") for f in (pl.bars, pl.components_against_mean)),
        *((f, (FAILED,), "5 zero_variance") for f in (pl.bars, pl.components_against_mean)),
        *((pl.compare, pair, "5 zero_var") for pair in ((FEW, FAILED), (FAILED, FEW))),
        *((pl.top_genes, (bad, "Age"), words) for bad, words in ((EMPTY, "no ro"), (FAILED, "5 "))),
        (pl.bars, (FEW, ["g1", "G_2"]), r"no gene 'G_2' \(did you mean 'g2'"),
        (pl.bars, (FEW, []), "genes is empty"),
        (pl.bars, (table(201),), "201 genes cannot be read"),
        (pl.bars, (FEW.set_axis([*"aabcd"]), ["a"]), "2 genes are called 'a'"),
        (pl.top_genes, (FEW, "Tisue"), r"no component 'Tisue' \(did you mean 'Tissue'\?\)"),
        (pl.top_genes, (FEW, "zzz"), "no component 'zzz': there are 'Age', 'Batch'"),
        *((pl.top_genes, (FEW, "Age", n), "n=") for n in (0, 201, True)),
        (results(FEW).top, ("age",), r"did you mean 'Age'"),
        *((results(FEW).top, ("Age", n), "n=") for n in (0, 2.5, True)),
        (pl.compare, (FEW, FEW.set_axis([*"vwxyz"])), "no fitted gene in common: 'g0'"),
        (pl.compare, (FEW, FEW.set_axis([*"vwxyz"], axis=1)), "no component in common"),
        (pl.compare, (FEW, FEW.set_axis([*"aabcd"])), "two genes are called 'a'"),
        (pl.components_against_mean, (FEW,), "says nothing of the mean: pass expression="),
        (pl.components_against_mean, (FEW, FEW["Age"].iloc[:3]), "2 of 5 genes have no mean"),
        (pl.components_against_mean, (FEW, np.ones((4, 6))), r"shape \(4, 6\)"),
        (pl.components_against_mean, (FEW, "path.csv"), "the mean of str is not taken here"),
        (pl.correlations, (FEW,), "5 rows and 5 columns: it must have the same variables"),
        (pl.correlations, (correlated().iloc[:0, :0],), "no variable"),
        (pl.correlations, (correlated() * np.nan,), "only NaN"),
        (pl.correlations, (correlated() * -1,), r"table.abs\(\)"),
        (pl.correlations, (correlated().add([0, 0, 0, 0, 0, 0.1]),), "not symmetric"),
        (pl.correlations, (correlated().astype(str),), "`v0` does not hold numbers"),
        (pl.correlation_structure, (results(FEW),), "no design"),
    ],
)
def test_what_cannot_be_drawn(function, arguments, message):
    with pytest.raises(jaxvp.DataError, match=message):
        plain(function)(*arguments)


@pytest.mark.parametrize(
    "function",
    [pl.bars, pl.top_genes, pl.components_against_mean, pl.correlation_structure, pl.correlations],
)
def test_what_is_no_result(function):
    arguments = ("Age",) if function is pl.top_genes else ()
    with pytest.raises(TypeError, match="not list"):
        plain(function)([1, 2], *arguments)
    with pytest.raises(TypeError, match="not list"):
        plain(pl.compare)(FEW, [1])
    if function is pl.correlation_structure:
        with pytest.raises(TypeError, match="needs a jaxvp.Results.*not DataFrame"):
            plain(function)(FEW)


@pytest.mark.parametrize(
    ("gene", "by", "options", "message"),
    [
        ("gene99", "Tissue", {}, "no gene 'gene99' .*did you mean"),
        ("gene1", "Tisue", {}, "did you mean Tissue"),
        ("gene1", ["Site", "Site"], {}, "one variable, or two different ones"),
        ("gene1", ["Site", "Plate", "Age"], {}, "one variable, or two"),
        ("gene1", "Age", {}, r"`Age` has .* different values.*pd.qcut"),
        ("gene1", "Site", {"adjusted": True}, "pass result="),
        ("gene7", "Site", {"adjusted": True, "result": 0}, r"could not be fitted \(zero_var"),
    ],
)
def test_what_cannot_be_stratified(fitted, gene, by, options, message):
    result, expression, metadata = fitted
    if "result" in options:
        options = options | {"result": result}
    with pytest.raises(ValueError, match=message):
        jaxvp.pl.stratify(expression, metadata, gene, by, **options)


def test_samples_of_another_fit(fitted):
    result, expression, metadata = fitted
    with (
        pytest.raises(jaxvp.DataError, match="fitted to 60 samples"),
        pytest.warns(UserWarning, match="samples .* are dropped"),
    ):
        jaxvp.pl.stratify(
            expression, metadata.iloc[1:], "gene1", "Site", result=result, adjusted=True
        )
    with pytest.raises(jaxvp.DataError, match="no random term 'Sit' .*Site"):
        jaxvp.pl.correlation_structure(result, "gene1", "Sit")
    with pytest.raises(jaxvp.DataError, match="could not be fitted"):
        jaxvp.pl.correlation_structure(result, "gene7")


def test_a_fit_with_weights(fitted):
    """One that does not remember them, or where genes have none in common."""
    result, expression, metadata = fitted
    weighted = dataclasses.replace(result, weighted=True)
    with pytest.raises(jaxvp.DataError, match="adjusted values depend on the weights.*weights="):
        jaxvp.pl.stratify(expression, metadata, "gene1", "Site", result=weighted, adjusted=True)
    with pytest.raises(jaxvp.DataError, match="structure depend on the weights.*weights="):
        jaxvp.pl.correlation_structure(weighted)
    with pytest.raises(jaxvp.DataError, match="weights of its own: name the gene .* gene="):
        jaxvp.pl.correlation_structure(weighted, weights=1 + 0 * expression)


def test_long_names_lose_their_middle():
    assert shorten("Age") == "Age" and shorten("a\nb") == "a b"
    name = "Plate:" + "x" * 50 + ":Centre"
    assert len(shorten(name, 20)) == 20
    assert shorten(name, 20).startswith("Plate:") and shorten(name, 20).endswith(":Centre")
    ax = jaxvp.pl.violins(table(names=TWENTY), ax=Figure(figsize=(3.6, 2.8)).subplots())
    assert all(label.get_fontsize() < 9 for label in ax.get_xticklabels())
    assert max(len(label.get_text()) for label in ax.get_xticklabels()) <= 32


def test_a_model_without_random_terms():
    expression, metadata = study()
    result = jaxvp.fit(expression, "~ Age + Tissue", metadata)
    with pytest.raises(jaxvp.DataError, match="no random term: it says that samples are indep"):
        jaxvp.pl.correlation_structure(result)
    y = expression.loc[metadata.index, "gene1"].to_numpy()
    found = adjust(align(expression, metadata)[0], result, "gene1", ["Tissue"], metadata)
    part = metadata["Age"] * result.coefficients.loc["gene1", "Age"]
    np.testing.assert_allclose(found, y - (part - part.mean()), atol=1e-10)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, draw in MAIN.items():
        pictures.imsave(PICTURES / f"{name}.png", picture(draw))
