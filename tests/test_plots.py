"""Figures: what the artists hold, never how pixels look."""

import inspect
import itertools
import subprocess
import sys
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import matplotlib
import numpy as np
import pandas as pd
import pytest
from fractions_to_draw import NAMES, results, table
from hypothesis import given
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

import jaxvp
from jaxvp.plots.density import BINS, LEAST_BANDWIDTH, bandwidth, density, outline
from jaxvp.plots.palette import COLOURS, OKABE_ITO, RESIDUAL_GREY, palette

SHARES = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1))
CENTRES = (np.arange(BINS) + 0.5) / BINS


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(ax):
    """Of every violin from left to right: name, colour, outline, and the numbers of its box."""
    bodies = [c for c in ax.collections if isinstance(c, PolyCollection)]
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert len(bodies) == len(names) == len(ax.patches)
    for place, (name, body, box) in enumerate(zip(names, bodies, ax.patches, strict=True)):
        x, y = body.get_paths()[0].vertices.T
        near = [line for line in ax.lines if np.allclose(np.mean(line.get_xdata()), place)]
        medians = {v for line in near if np.ptp(line.get_ydata()) == 0 for v in line.get_ydata()}
        whiskers = [v for line in near for v in line.get_ydata()]
        yield SimpleNamespace(
            name=name,
            place=place,
            colour=to_hex(body.get_facecolor()[0]).upper(),
            x=x,
            y=y,
            quartiles=(box.get_path().vertices[:, 1].min(), box.get_path().vertices[:, 1].max()),
            medians=medians,
            whiskers=(min(whiskers), max(whiskers)),
        )


# Violins


@pytest.mark.parametrize("wrap", [results, lambda fractions: fractions], ids=["result", "table"])
def test_components_stand_by_median_and_residuals_last(wrap):
    fractions = table()[["Residuals", "Age", "Tissue", "Batch", "Subject"]]
    names = [violin.name for violin in drawn(jaxvp.pl.violins(wrap(fractions)))]
    medians = fractions.drop(columns="Residuals").median()
    assert names == [*sorted(medians.index, key=lambda name: -medians[name]), "Residuals"]
    assert fractions.columns[0] == "Residuals", "the table itself stays as it is"


def test_boxes_are_those_of_numpy():
    fractions = table()
    for violin in drawn(jaxvp.pl.violins(fractions)):
        percent = 100 * fractions[violin.name].to_numpy()
        low, median, high = np.percentile(percent, [25, 50, 75])
        np.testing.assert_allclose(violin.quartiles, (low, high), rtol=1e-12)
        assert any(np.isclose(median, found, rtol=1e-12) for found in violin.medians)
        # The whiskers of matplotlib's own box plot.
        (expected,) = matplotlib.cbook.boxplot_stats(percent)
        ends = expected["whislo"], expected["whishi"]
        np.testing.assert_allclose(violin.whiskers, ends, rtol=1e-12)


def test_violins_have_one_width_and_stay_apart():
    for violin in drawn(jaxvp.pl.violins(table())):
        assert np.isclose(violin.x.max() - violin.place, 0.42)
        assert np.isclose(violin.place - violin.x.min(), 0.42)


def test_violins_end_where_the_genes_do():
    fractions = table()
    for violin in drawn(jaxvp.pl.violins(fractions)):
        percent = 100 * fractions[violin.name]
        assert 0 <= percent.min() - violin.y.min() <= 100 * LEAST_BANDWIDTH + 1e-9
        assert 0 <= violin.y.max() - percent.max() <= 100 * LEAST_BANDWIDTH + 1e-9
        assert violin.y.min() >= 0 and violin.y.max() <= 100


def test_failed_genes_are_left_out():
    fractions = table()
    failed = pd.concat([fractions, fractions.iloc[:7].set_axis(list("abcdefg")) * np.nan])
    pairs = zip(
        drawn(jaxvp.pl.violins(results(failed))), drawn(jaxvp.pl.violins(fractions)), strict=True
    )
    for with_failed, without in pairs:
        assert with_failed.name == without.name
        np.testing.assert_array_equal(with_failed.x, without.x)
        np.testing.assert_array_equal(with_failed.y, without.y)
        assert with_failed.quartiles == without.quartiles


def test_a_component_that_is_zero_everywhere_is_seen():
    fractions = pd.DataFrame({"Batch": [0.0] * 9, "Residuals": [1.0] * 9})
    batch, residuals = drawn(jaxvp.pl.violins(fractions))
    assert (batch.y.min(), residuals.y.max()) == (0, 100)
    assert np.ptp(batch.y) > 0 and np.ptp(residuals.y) > 0
    assert batch.quartiles == (0, 0) and residuals.quartiles == (100, 100)


@pytest.mark.parametrize("genes", [1, 2])
def test_few_genes(genes):
    assert len(list(drawn(jaxvp.pl.violins(table(genes))))) == 5


def test_whiskers_never_point_into_the_box():
    """As matplotlib's do: here the first quartile lies below all genes but one far away."""
    ax = jaxvp.pl.violins(pd.DataFrame({"a": [0.0, 0.8, 0.81, 0.82]}))
    (violin,) = drawn(ax)
    low, high = violin.quartiles
    (expected,) = matplotlib.cbook.boxplot_stats([0, 80, 81, 82])
    assert np.isclose(low, expected["whislo"]) and low < 80
    upright = [line.get_ydata() for line in ax.lines if np.ptp(line.get_xdata()) == 0]
    assert all(max(y) <= low or min(y) >= high for y in upright)


def test_axis_is_percent():
    ax = jaxvp.pl.violins(table())
    ax.figure.canvas.draw()
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown == ["0%", "25%", "50%", "75%", "100%"]
    assert ax.get_ylabel() == "Variance explained"
    low, high = ax.get_ylim()
    assert low < 0 and high > 100


def test_rounding_beyond_one_is_drawn():
    fractions = pd.DataFrame({"a": [-1e-12, 0.5], "Residuals": [1 + 1e-12, 0.5]})
    violins = list(drawn(jaxvp.pl.violins(fractions)))
    assert min(v.y.min() for v in violins) == 0
    assert max(v.y.max() for v in violins) == 100


# Figures


def test_axes_that_are_given_are_used():
    """Without a window, pyplot, or a figure of its own."""
    ax = Figure().subplots()
    assert jaxvp.pl.violins(table(), ax=ax) is ax
    assert plt.get_fignums() == []


def names_overlap(ax):
    """Whether two names below the axis touch, as drawn."""
    ax.figure.canvas.draw()
    renderer = ax.figure.canvas.get_renderer()
    labels = ax.get_xticklabels()
    if labels[0].get_rotation() == 45:
        # Slanted ones touch if their anchors are closer than a line is high.
        height = labels[0].get_fontsize() / 72 * ax.figure.dpi
        anchors = [ax.transData.transform((place, 0))[0] for place in range(len(labels))]
        return (np.diff(anchors) * np.sin(np.pi / 4) < height).any()
    boxes = [label.get_window_extent(renderer) for label in labels]
    return any(a.x1 >= b.x0 for a, b in itertools.pairwise(boxes))


LONG = "Tissue[T.Brain - Frontal Cortex (BA9)]"


@pytest.mark.parametrize(
    "names",
    [
        ["Batch", "Individual", "Residuals"],
        NAMES,
        ["Condition", "Collection", "Processing", "Laboratory", "Individual", "Residuals"],
        [f"Component {i}" for i in range(14)] + ["Residuals"],
        ["Age", LONG, "scale(body_mass_index)", "Residuals"],
        ["WWWWWWWWMM", "MMMMMMMM", "Residuals"],
    ],
    ids=["3", "5", "6", "15", "long", "wide letters"],
)
def test_names_are_legible(names):
    ax = jaxvp.pl.violins(table(names=names))
    assert not names_overlap(ax)
    inside = ax.figure.bbox
    for label in ax.get_xticklabels():
        box = label.get_window_extent()
        assert box.x0 >= inside.x0 - 1 and box.x1 <= inside.x1 + 1 and box.y0 >= inside.y0 - 1
    width, height = ax.get_window_extent().size / ax.figure.dpi
    assert width >= 0.35 * len(names) and height > 2
    assert ax.figure.get_size_inches()[0] <= 7.3


def test_a_dollar_in_a_name_is_a_dollar():
    """Two of them would be mathematics, and an error where it is none."""
    ax = jaxvp.pl.violins(table(names=["$\\frac$", "a$b", "Residuals"]))
    ax.figure.canvas.draw()


def test_crowded_names_are_slanted():
    few, many = (jaxvp.pl.violins(table(names=n)) for n in (NAMES, [*"abcdefgh", LONG]))
    assert {label.get_rotation() for label in few.get_xticklabels()} == {0}
    assert {label.get_rotation() for label in many.get_xticklabels()} == {45}
    narrow = Figure(figsize=(2.5, 3)).subplots()
    jaxvp.pl.violins(table(), ax=narrow)
    assert {label.get_rotation() for label in narrow.get_xticklabels()} == {45}


def test_backend_stays_the_callers():
    """And none is chosen by importing the package."""
    code = (
        "import os; os.environ.pop('MPLBACKEND', None); os.environ.pop('DISPLAY', None)\n"
        "import matplotlib, jaxvp, pandas as pd\n"
        "from matplotlib.figure import Figure\n"
        "auto = matplotlib.rcParams._get_backend_or_none()\n"
        "jaxvp.pl.violins(pd.DataFrame({'a': [.1, .4]}), ax=Figure().subplots())\n"
        "assert matplotlib.rcParams._get_backend_or_none() == auto is None\n"
        "matplotlib.use('svg')\n"
        "jaxvp.pl.violins(pd.DataFrame({'a': [.1, .4]}))\n"
        "print(matplotlib.get_backend().lower())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("svg\n", 0), done.stderr


# Bad input


def failed(status):
    return results(table(3) * np.nan, status)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (table().iloc[:0], jaxvp.DataError, "no rows: there is no gene"),
        (results(table().iloc[:0]), jaxvp.DataError, "no rows: there is no gene"),
        (table().iloc[:, :0], jaxvp.DataError, "no columns: there is no component"),
        (failed("zero_variance"), jaxvp.DataError, r"none of the 3 .*\(3 zero_variance\)"),
        (table(3) * np.nan, jaxvp.DataError, r"none of the 3 genes .*\(all have NaN\)"),
        (table() * 100, jaxvp.DataError, "`Age` goes from 0 to .*not variances or percentages"),
        (table() - 0.01, jaxvp.DataError, "`Age` goes from -0.01 to"),
        (table().assign(Batch="x"), jaxvp.DataError, "`Batch` does not hold numbers"),
        (table().set_axis([*"abca", "Residuals"], axis=1), jaxvp.DataError, "two .* called `a`"),
        (table().to_numpy(), TypeError, "a jaxvp.Results, a DataFrame .*, not ndarray"),
        (table()["Age"], TypeError, "not Series"),
    ],
    ids=[
        *("no genes", "no genes in a result", "no components", "all failed", "all NaN"),
        *("percent", "negative", "text", "twice", "array", "series"),
    ],
)
def test_what_cannot_be_drawn(given, error, message):
    """Said before a figure is made."""
    # Without the checks of annotations that only tests have: they would speak first.
    violins = inspect.unwrap(jaxvp.pl.violins)
    with pytest.raises(error, match=message):
        violins(given)
    assert plt.get_fignums() == []


# Density


def reflected(values, at):
    """scipy's kernel estimate of the values and their mirror images beyond both ends."""
    images = np.concatenate([values, -values, 2 - values])
    spread = images.std(ddof=1)
    kernel = gaussian_kde(images, bw_method=bandwidth(values) / spread)
    return 3 * kernel(at)


@pytest.mark.parametrize("a, b", [(0.5, 3), (2, 2), (8, 0.7), (40, 40)])
def test_density_is_scipys_reflected(a, b):
    values = np.random.default_rng(0).beta(a, b, size=2000)
    expected = reflected(values, CENTRES)
    np.testing.assert_allclose(density(values), expected, atol=0.01 * expected.max())


@given(SHARES)
def test_density_is_one(values):
    found = density(values)
    assert (found >= 0).all()
    assert np.isclose(found.mean(), 1, rtol=1e-9)


@given(SHARES)
def test_density_has_no_preferred_end(values):
    """Mirrored genes, mirrored violin; but a value on the edge of two bins falls into the upper."""
    centred = (np.minimum(np.floor(values * BINS), BINS - 1) + 0.5) / BINS
    np.testing.assert_allclose(density(1 - centred), density(centred)[::-1], rtol=1e-6, atol=1e-6)


def test_bandwidth_is_silvermans():
    values = np.random.default_rng(1).normal(0.5, 0.1, size=1000)
    low, high = np.percentile(values, [25, 75])
    expected = 0.9 * min(values.std(), (high - low) / 1.34) * 1000**-0.2
    assert np.isclose(bandwidth(values), expected)
    half_zero = np.r_[np.zeros(800), np.full(200, 0.9)]
    assert np.isclose(bandwidth(half_zero), 0.9 * half_zero.std() * 1000**-0.2)
    assert bandwidth(np.zeros(5)) == LEAST_BANDWIDTH


@given(SHARES)
def test_outline_can_be_drawn(values):
    heights, widths = outline(values)
    assert (np.diff(heights) > 0).all()
    assert heights[0] <= values.min() and heights[-1] >= values.max()
    assert heights[0] >= 0 and heights[-1] <= 1
    assert ((widths >= 0) & (widths <= 1)).all() and widths.max() == 1


# Palette


def simulated(colours):
    """sRGB as seen with normal, protan, deutan and tritan vision.

    Full dichromacy, Machado, Oliveira and Fernandes (2009), then CIELAB (D65).
    """
    views = np.array(
        [
            np.eye(3).tolist(),
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216]]
            + [[-0.003882, -0.048116, 1.051998]],
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413]]
            + [[-0.011820, 0.042940, 0.968881]],
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602]]
            + [[0.004733, 0.691367, 0.303900]],
        ]
    )
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ views.transpose(0, 2, 1), 0, 1)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    t = seen @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def closest(colours):
    """The least CIELAB distance of two of the colours in any of the four kinds of vision."""
    lab = simulated(colours)
    distance = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)
    return distance[:, ~np.eye(len(colours), dtype=bool)].min()


def test_colours_are_told_apart_by_all():
    """Also from the grey of the residuals and from the paper."""
    assert closest(["#FF0000", "#806000"]) < 15, "the measure sees what deutans see"
    assert closest([*OKABE_ITO, RESIDUAL_GREY, "#FFFFFF"]) > 9
    assert closest([*COLOURS, RESIDUAL_GREY, "#FFFFFF"]) > 6


def test_colour_goes_by_name():
    names = ["Tissue", "Residuals", "Age", "Batch"]
    expected = {"Age": COLOURS[0], "Batch": COLOURS[1], "Tissue": COLOURS[2]}
    assert palette(names) == expected | {"Residuals": RESIDUAL_GREY}
    assert list(palette(names)) == names


def test_violins_have_the_colours_of_the_palette():
    result = results(table())
    for one in (result, result.sort_columns()):
        found = {violin.name: violin.colour for violin in drawn(jaxvp.pl.violins(one))}
        assert found == palette(NAMES)
        assert found["Residuals"] == RESIDUAL_GREY


def test_every_component_has_a_colour_of_its_own():
    many = palette([f"c{i:02}" for i in range(45)] + ["Residuals"])
    assert len(set(many.values())) == 46
    assert all(to_hex(colour).upper() == colour for colour in many.values())
    assert list(many.values())[:15] == list(COLOURS)
