"""The report's HTML: what stands in it, that names stay names, that it can be read without eyes.

What a browser makes of it: `test_report_browser.py`.
"""

import dataclasses
import inspect
import json
import os
import re
import shlex
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fractions_to_draw import results, table
from reports import FORMULA, NAMES, Page, metadata, study

import jaxvp
from jaxvp.cli.output import command
from jaxvp.config import FitConfig
from jaxvp.reporting import figures
from jaxvp.reporting.page import percent, sentence

# Without the checks of annotations that only tests have: they would speak first.
report = inspect.unwrap(jaxvp.report)


@pytest.fixture(scope="module")
def result():
    return study()


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert jaxvp.report(result, path) == path
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written):
    return Page(written)


@pytest.fixture
def undrawn(monkeypatch):
    """Where figures are not looked at, they need not be drawn."""

    def picture(title, description, plot):
        return figures.Picture(title, "data:,", description, 1, 1)

    monkeypatch.setattr(figures, "_picture", picture)


def made(result, tmp_path, **options):
    return Page(jaxvp.report(result, tmp_path / "r.html", **options).read_text(encoding="utf-8"))


def genes_of(page):
    (script,) = page.all("script", type="application/json")
    return json.loads("".join(script.pieces))


def sections(page):
    return {one["aria-labelledby"]: one.text for one in page.all("section")}


# The page as such


def test_nothing_is_fetched(written, page):
    """Neither by the page nor by its style and script; links to articles are for clicks."""
    for element in page.elements:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            link = element.get(name) or "#"
            doi = element.tag == "a" and link.startswith("https://doi.org/10.")
            assert doi or link.startswith(("#", "data:")), link
    code = "".join("".join(one.pieces) for one in page.all("style", "script"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|import\(", code)
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_structure(page):
    assert page.one("html")["lang"] == "en" and page.one("title").text
    assert page.one("h1").text == "200 genes in 60 samples"
    levels = [int(one.tag[1]) for one in page.all("h1", "h2", "h3", "h4")]
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    for tag in ("main", "nav", "header"):
        assert len(page.all(tag)) == 1
    ids = [one["id"] for one in page.elements if one.get("id")]
    assert len(ids) == len(set(ids))
    for name in ("aria-labelledby", "aria-controls", "for", "href"):
        for element in page.elements:
            for target in (element.get(name) or "").split():
                if name != "href" or target.startswith("#"):
                    assert target.lstrip("#") in ids, (name, target)


def test_tables_are_tables(page):
    tables = page.all("table")
    assert len(tables) == 5  # components, genes, outcomes, factors, correlations
    for one in tables:
        assert len(page.inside(one, "caption")) == 1
        heads = page.inside(one, "th")
        assert heads and all(head["scope"] in ("col", "row") for head in heads)
        columns = {len(row) for row in page.rows(one)}
        assert len(columns) == 1
    (genes,) = page.all("table", id="gene-table")
    sortable = [one for one in page.inside(genes, "th") if one.get("aria-sort")]
    assert [one["aria-sort"] for one in sortable] == ["none"] * 8
    assert all(len(page.inside(one, "button")) == 1 for one in sortable)


def test_controls_have_labels(page):
    for control in page.all("input", "select"):
        assert [one for one in control.inside if one.tag == "label"]
    box = page.one(id="gene-box")
    assert (box["tabindex"], box["role"]) == ("0", "region")
    assert page.one("output")["aria-live"] == "polite"


def test_images_are_described(page, result):
    images = page.all("img")
    assert len(images) == 6  # violins, four components, correlations
    medians = result.summary()["median"]
    for name in NAMES:
        assert f"{name} {percent(medians[name])}" in images[0]["alt"]
    # Sorted by their medians: Tissue comes first.
    best = result.top("Tissue", 10)["Tissue"]
    assert f"largest share of Tissue: {best.index[0]} {percent(best.iloc[0])}" in images[1]["alt"]
    assert "Heat map of the canonical correlations of 4 variables" in images[-1]["alt"]
    assert all(one["src"].startswith("data:image/svg+xml;base64,") for one in images)


def test_the_same_result_is_the_same_file(page, result, tmp_path, undrawn):
    one, other = (jaxvp.report(result, str(tmp_path / name)) for name in ("1.html", "2.html"))
    assert one.read_bytes() == other.read_bytes()


def test_figures_are_the_same_whatever_the_settings(page, result):
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert figures.violins(result).source == page.all("img")[0]["src"]


# What stands in it


def test_every_gene_is_there(page, result):
    data = genes_of(page)
    assert data["names"] == list(result.fractions.index)
    order = result.sort_columns().fractions.columns
    assert [one["name"] for one in data["components"]] == list(order)
    for component in data["components"]:
        fractions = result.fractions[component["name"]]
        shares = np.array([np.nan if x is None else x for x in component["shares"]])
        np.testing.assert_allclose(shares, 10_000 * fractions, atol=0.5)
        np.testing.assert_array_equal(shares == 0, fractions == 0)
    status = [data["statuses"]["0123456789".index(digit)] for digit in data["status"]]
    assert status == list(result.diagnostics["status"])
    assert [one == "1" for one in data["singular"]] == list(result.diagnostics["singular"])
    assert data["observations"] is None


def test_a_tiny_share_is_not_zero(tmp_path, undrawn):
    fractions = table(3)
    fractions.iloc[0] = [0.0, 1e-9, 4e-5, 0.3, 0.69996 - 1e-9]
    data = genes_of(made(results(fractions), tmp_path))
    shares = {one["name"]: one["shares"][0] for one in data["components"]}
    assert (shares["Age"], shares["Batch"], shares["Subject"]) == (0, 0.1, 0.1)
    assert (shares["Tissue"], shares["Residuals"]) == (3000, 7000)


def test_summary_of_the_components(page, result):
    rows = page.rows(page.all("table")[0])
    summary = result.sort_columns().summary()
    zero = (result.fractions.dropna() == 0).mean()
    assert [row[0] for row in rows[1:]] == list(summary.index)
    for name, median, mean, middle, zeros in rows[1:]:
        expected = summary.loc[name]
        assert (median, mean) == (percent(expected["median"]), percent(expected["mean"]))
        assert middle == f"{percent(expected['25%'])} to {percent(expected['75%'])}"
        assert zeros == (f"{percent(zero[name])} of genes" if zero[name] else "no gene")


def test_outcomes(page, result):
    rows = page.rows(page.all("table")[2])
    assert [row[:3] for row in rows[1:]] == [
        ["converged", "197", "98.5 %"],
        ["zero_variance", "1", "0.5 %"],
        ["non_finite", "2", "1.0 %"],
    ]
    assert rows[2][3].startswith("Constant up to") and "before the fit" in rows[2][4]
    singular = int(result.diagnostics["singular"].sum())
    assert f"{singular} of 197 fitted genes are singular" in sections(page)["outcomes"]
    numbers = page.one("dl", class_="numbers").text
    assert "Fitted19798.5 % of genes" in numbers and "Not fitted3why" in numbers
    options = [one.text for one in page.inside(page.one("select", id="status"), "option")]
    assert options == [
        *("all (200)", "converged (197)", "zero_variance (1)", "non_finite (2)"),
        "all that were not fitted (3)",
    ]


def test_the_design_is_checked(page, result):
    text = sections(page)["design"]
    expected = jaxvp.check_design(FORMULA, metadata())
    assert "Can be fitted, as a mixed model." in text and "60 of 60" in text
    assert len(expected.findings) == len(page.inside(page.one("ul", class_="findings"), "li"))
    for finding in expected.findings:
        assert finding.message.replace("`", "")[1:] in text
        assert finding.advice.replace("`", "")[1:] in text
    rows = page.rows(page.all("table")[3])
    assert [row[0] for row in rows[1:]] == ["Batch", "Subject", "Tissue"]
    numbers = page.rows(page.all("table")[4])
    assert numbers[0][1:] == ["Age", "Batch", "Subject", "Tissue"]
    found = np.array([row[1:] for row in numbers[1:]], float)
    np.testing.assert_allclose(found, expected.correlations, atol=5e-4)
    assert "samples that were dropped" in text


def test_metadata_count_what_was_dropped(result, tmp_path, undrawn):
    """Samples with a gap are counted; others that are not in the result had no measurements."""
    more = pd.concat([metadata(), metadata().iloc[:5].set_axis([*"abcde"])])
    more.loc["a", "Age"] = np.nan
    text = sections(made(result, tmp_path, metadata=more))["design"]
    assert "60 of 61; without a value of Age (1): a" in text
    assert "4 more samples of the metadata had no measurements" in text
    assert "samples that were dropped" not in text
    path = tmp_path / "samples.csv"
    metadata().to_csv(path)
    assert "60 of 60" in sections(made(result, tmp_path, metadata=path))["design"]


def test_the_call_and_whom_to_cite(page):
    call = "".join(page.one("pre").pieces)
    tree = compile(call, "call", "exec")
    assert tree and f"{FORMULA!r}," in call
    for option in ("reml=False", "dtype='float64'", "solver='newton'", "block_size='auto'"):
        assert f"    {option},\n" in call
    assert [one.text for one in page.inside(page.one("ul", class_="versions"), "li")] == [
        *("python 3.11.0", "jaxvp 0.0.7", "jax 0.9.9"),
    ]
    cited = sections(page)["cite"]
    assert "jaxvp 0.0.7" in cited and "Hoffman" in cited and "Bates" in cited
    assert "by maximum likelihood, each gene to a certified optimum" in sections(page)["methods"]


def test_a_fixed_model(tmp_path):
    """No word of likelihoods and singular genes, which it does not have."""
    expression = pd.DataFrame(np.random.default_rng(0).random((3, 60)), columns=metadata().index)
    result = jaxvp.fit(expression, "~ Age + Tissue", metadata(), block_size=64)
    assert result.options == {
        **{"reml": False, "dtype": "float64", "solver": "newton", "block_size": 64}
    }
    page = made(result, tmp_path)
    assert not page.all(id="singular") and not page.all("select", id="singular-filter")
    assert genes_of(page)["singular"] is None
    assert "Bates" not in sections(page)["cite"]
    assert "fitted by least squares" in sections(page)["methods"]
    assert "block_size=64" in page.one("pre").text


def test_weights_and_lost_observations(tmp_path, undrawn):
    result = study(9, weighted=True)
    result.diagnostics["n_obs"] = range(50, 59)
    page = made(result, tmp_path)
    assert genes_of(page)["observations"] == list(range(50, 59))
    assert page.all("th")[-1] and "Samples" in page.rows(page.all("table")[1])[0]
    assert "weights=weights" in page.one("pre").text
    assert "with observation weights" in sections(page)["methods"]


def test_a_call_that_is_given(result, tmp_path, undrawn):
    call = 'jaxvp fit --formula "~ <Age>"'
    page = made(result, tmp_path, call=call)
    assert page.one("pre").text == call


def test_many_components(tmp_path, undrawn):
    names = [f"c{i:02}" for i in range(24)] + ["Residuals"]
    page = made(results(table(30, names)), tmp_path)
    assert len(page.all("img")) == 1 + figures.MOST_COMPONENTS
    assert "Not drawn, since there are so many: c0" in sections(page)["top-genes"]
    assert len(genes_of(page)["components"]) == 25


# Foreign text

EVIL = "<script>alert('x')</script>&\"`<b>"


def test_names_stay_names(tmp_path, undrawn):
    """Of genes, variables, levels, samples, the formula: whatever is in them is text."""
    variable = EVIL.replace("`", "")
    samples = metadata().rename(columns={"Batch": variable})
    samples[variable] = [f"{EVIL}{level}" for level in samples[variable]]
    formula = f"~ Age + (1|`{variable}`) + (1|Subject)"
    index = [f"{EVIL}{i}" for i in range(12)]
    names = ["Age", variable, "Subject", "Residuals"]
    result = study(12, formula=formula, names=names, samples=samples, index=index)
    page = made(result, tmp_path, metadata=samples)
    assert len(page.all("script")) == 2 and not page.all("b")
    data = genes_of(page)
    assert data["names"] == index
    assert variable in [one["name"] for one in data["components"]]
    assert variable in [row[0] for row in page.rows(page.all("table")[0])]
    assert variable in [one.text for one in page.all("h3")]
    assert page.one("p", class_="formula").text == formula
    assert formula in eval("".join(page.one("pre").pieces).removeprefix("result = jaxvp.fit")
                           .replace("expression", "1").replace("metadata", "2")
                           .replace("reml=False", "3").replace("dtype=", "")
                           .replace("solver=", "").replace("block_size=", ""))  # fmt: skip
    assert any(variable in one["alt"] for one in page.all("img"))


def test_no_name_ends_the_data(tmp_path, undrawn):
    index = ["</script>", "<!--<script>", "]]>", "\u2028", "\\", '"', "NaN"]
    path = jaxvp.report(results(table(7).set_axis(index)), tmp_path / "r.html")
    text = path.read_text(encoding="utf-8")
    assert genes_of(Page(text))["names"] == index
    (data,) = re.findall(r'id="gene-data">(.*?)</script>', text, re.DOTALL)
    assert not set(data) & set("<>&'")


def test_names_of_any_kind(tmp_path, undrawn):
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])
    assert genes_of(made(results(table(3).set_axis(index)), tmp_path))["names"][1] == "('a', 2)"
    twice = [7, "Gen €", "Gen €"]
    assert genes_of(made(results(table(3).set_axis(twice)), tmp_path))["names"] == [
        *("7", "Gen €", "Gen €"),
    ]


def test_sentences():
    assert sentence("`a<b` is <i>") == "<code>a&lt;b</code> is &lt;i&gt;."
    assert sentence("ends. ") == "Ends. " and sentence("") == "" and sentence("why?") == "Why?"


def test_percent():
    shown = [percent(x) for x in (0.0, 1e-9, 0.00049, 0.001, 0.1234, 0.99951, 1.0, float("nan"))]
    assert shown == [
        *("0", "< 0.1 %", "< 0.1 %", "0.1 %", "12.3 %", "> 99.9 %", "100.0 %", "–"),
    ]


# Results with little in them


def test_an_empty_result(tmp_path):
    page = made(results(table(5).iloc[:0]), tmp_path)
    assert page.one("h1").text == "0 genes"
    assert "The result has no genes" in sections(page)["components"]
    assert not page.all("img") and not page.all("form")
    assert genes_of(page)["names"] == []


def test_all_genes_failed(tmp_path):
    result = dataclasses.replace(study(20), design=None)
    nothing = result.fractions * np.nan
    result = dataclasses.replace(result, fractions=nothing, variances=nothing)
    result.diagnostics["status"] = "non_finite"
    page = made(result, tmp_path)
    assert "None of the 20 genes could be fitted" in sections(page)["components"]
    assert "no gene was fitted" in sections(page)["top-genes"]
    assert page.rows(page.one("table", class_="plain words"))[1][:3] == [
        *("non_finite", "20", "100.0 %"),
    ]
    assert genes_of(page)["components"][0]["shares"] == [None] * 20
    assert not page.all(id="singular") and not page.all("a", href="#singular")
    assert not page.all("img")


def test_a_result_without_design(tmp_path, undrawn):
    result = dataclasses.replace(study(5), design=None)
    page = made(result, tmp_path)
    text = sections(page)["design"]
    assert "This result has no design" in text and "jaxvp.report(..., metadata=...)" in text
    assert "There is no figure" not in text
    assert "Design–not known" in page.one("dl", class_="numbers").text
    assert page.one("h1").text == "5 genes"
    again = sections(made(result, tmp_path, metadata=metadata()))["design"]
    assert "Can be fitted, as a mixed model" in again and "60 of 60" in again


def test_one_component(tmp_path):
    page = made(results(table(4)[["Residuals"]] * 0 + 1.0), tmp_path)
    assert "no component but the residuals" in sections(page)["top-genes"]
    assert len(page.all("img")) == 1


def test_a_component_that_is_zero_in_all_genes(tmp_path, undrawn):
    fractions = table(4).assign(Age=0.0)
    page = made(results(fractions), tmp_path)
    assert "exactly zero in all genes" in sections(page)["top-genes"]
    assert "100.0 % of genes" in sections(page)["components"]


# Bad input


@pytest.mark.parametrize("given", [table(3), None, "result.zip", [1]])
def test_what_is_no_result(given, tmp_path):
    with pytest.raises(TypeError, match=f"of a jaxvp.Results.*not {type(given).__name__}"):
        report(given, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("work was done")

    monkeypatch.setattr(figures, "draw", never)
    with pytest.raises(FileNotFoundError, match="there is no folder .*missing to write r.html"):
        report(study(3), tmp_path / "missing" / "r.html")
    with pytest.raises(IsADirectoryError, match="is a folder: name a file in it"):
        report(study(3), tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no permission to write r.html"):
        report(study(3), tmp_path / "r.html")


def test_a_report_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(figures, "draw", broken)
    with pytest.raises(OSError, match="disk full"):
        report(study(3), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (metadata().iloc[3:], "3 of the 60 samples of the result .* first is 's0'"),
        (metadata().to_numpy(), "must be a pandas DataFrame"),
        (metadata().iloc[:0], "no samples"),
    ],
    ids=["others", "array", "empty"],
)
def test_metadata_of_another_study(table, message, tmp_path):
    with pytest.raises(jaxvp.DataError, match=message):
        report(study(3), tmp_path / "r.html", metadata=table)
    assert not list(tmp_path.iterdir())


# The command


def test_the_command_is_one_that_can_be_typed():
    config = FitConfig(
        expression=Path("my genes.csv"),
        formula="~ (1|a)",
        out=Path("o"),
        reml=False,
        report=True,
        block_size=5,
    )
    words = shlex.split(command(config))
    assert words == [
        *("jaxvp", "fit", "--expression", "my genes.csv", "--formula", "~ (1|a)", "--out", "o"),
        *("--report", "--ml", "--block-size", "5"),
    ]
    assert command(FitConfig(reml=True, report=False)) == "jaxvp fit --reml"
