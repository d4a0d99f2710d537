"""The report in a real browser: it opens, searches, filters, sorts, prints, by mouse and by keys.

Chromium without a window, through selenium; without them every test is skipped and says what is
missing. How fast the page loads is measured by `benchmarks/report.py`.
"""

import base64
import json
import re

import numpy as np
import pytest
from fractions_to_draw import results, table
from reports import NAMES, study

import jaxvp
from benchmarks.browser import browser, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
GENES = 3000


@pytest.fixture(scope="module")
def result():
    return study(GENES)


@pytest.fixture(scope="module")
def path(result, tmp_path_factory):
    return jaxvp.report(result, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def driver():
    with browser(1280, 900) as opened:
        yield opened


@pytest.fixture
def page(driver, path):
    """The page as it opens; nothing that happens to it is told on the console."""
    driver.get(path.as_uri())
    yield driver
    assert driver.get_log("browser") == []


def find(page, selector):
    from selenium.webdriver.common.by import By

    return page.find_elements(By.CSS_SELECTOR, selector)


def rows(page):
    """The cells of the rows that are in the page, as text."""
    code = "return [...document.querySelectorAll('#gene-table tbody tr[aria-rowindex]')]"
    return page.execute_script(f"{code}.map(row => [...row.cells].map(cell => cell.textContent))")


def names(page):
    return [row[0] for row in rows(page)]


def settled(page):
    """After a scroll or a reset the table is drawn in the next frame."""
    page.execute_async_script(
        "const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => "
        "requestAnimationFrame(() => done())), 30)"
    )


def count(page):
    return find(page, "#shown")[0].text


def heading(page, name):
    heads = find(page, "#gene-table thead th")
    return next(one for one in heads if one.text.startswith(name))


def press(page, *keys):
    """Keys go to what has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()
    settled(page)


def requests(page):
    """Addresses that the browser asked for."""
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent]


def test_opens_from_disk_and_asks_for_nothing(driver, path):
    driver.get_log("performance")
    driver.get(path.as_uri())
    asked = [url for url in requests(driver) if not url.startswith("data:")]
    assert set(asked) == {path.as_uri()}
    assert driver.get_log("browser") == []
    assert driver.title == "Variance partition of 3,000 genes"
    broken = [one for one in find(driver, "img") if not one.get_property("naturalWidth")]
    assert len(find(driver, "img")) == 6 and not broken


def test_rows_are_the_genes(page, result):
    """As they came, and no more of them than are in sight."""
    found = rows(page)
    assert [row[0] for row in found] == list(result.fractions.index[: len(found)])
    assert 15 < len(found) < 80
    order = list(result.sort_columns().fractions.columns)
    for row in found:
        fractions = result.fractions.loc[row[0], order]
        if np.isnan(fractions).any():
            assert set(row[2:-2]) == {"–"}
            continue
        for shown, fraction in zip(row[2:-2], fractions, strict=True):
            if shown == "0":
                assert fraction == 0
            elif shown.startswith("<"):
                assert 0 < fraction < 0.001
            else:
                assert abs(float(shown) - 100 * fraction) <= 0.0501 + 0.005
        assert row[-2] == result.diagnostics["status"][row[0]]
        assert row[-1] == ("yes" if result.diagnostics["singular"][row[0]] else "no")


def test_scrolling_reaches_every_gene(page, result):
    seen = set(names(page))
    box = find(page, "#gene-box")[0]
    for _ in range(400):
        page.execute_script("arguments[0].scrollTop += arguments[0].clientHeight", box)
        settled(page)
        seen |= set(names(page))
        if names(page)[-1] == result.fractions.index[-1]:
            break
    assert seen == set(result.fractions.index)
    page.execute_script("arguments[0].scrollTop = 1e9", box)
    settled(page)
    last = find(page, "#gene-table tbody tr[aria-rowindex]")[-1]
    assert last.get_attribute("aria-rowindex") == str(GENES + 1)
    bottom = page.execute_script(
        "return arguments[0].getBoundingClientRect().bottom", last
    ) - page.execute_script("return arguments[0].getBoundingClientRect().bottom", box)
    assert abs(bottom) < 4, "the last row is at the end of the box"


def test_search(page, result):
    find(page, "#search")[0].send_keys("G12")
    assert count(page) == "111 of 3,000 genes"  # g12, g120 to g129, g1200 to g1299
    assert all("g12" in name for name in names(page))
    find(page, "#search")[0].send_keys("3, g7, nothing")
    expected = [name for name in result.fractions.index if "g123" in name or "g7" in name]
    assert count(page) == f"{len(expected)} of 3,000 genes"
    assert names(page) == expected[: len(names(page))]
    find(page, "#search")[0].clear()
    find(page, "#search")[0].send_keys("zzz")
    assert count(page) == "0 of 3,000 genes" and names(page) == []
    assert "No gene is left" in find(page, "#gene-table tbody")[0].text
    find(page, "button[type=reset]")[0].click()
    settled(page)
    assert count(page) == "3,000 of 3,000 genes"
    assert find(page, "#search")[0].get_property("value") == ""


def test_filters(page, result):
    from selenium.webdriver.support.select import Select

    status = Select(find(page, "#status")[0])
    status.select_by_value("non_finite")
    assert names(page) == ["g8", "g9"]
    status.select_by_value("!")
    assert names(page) == ["g3", "g8", "g9"]
    assert [row[2] for row in rows(page)] == ["–"] * 3
    status.select_by_value("converged")
    assert count(page) == "2,997 of 3,000 genes"
    Select(find(page, "#singular-filter")[0]).select_by_value("1")
    singular = result.diagnostics["singular"]
    assert count(page) == f"{int(singular.sum()):,} of 3,000 genes"
    assert all(singular[name] for name in names(page))
    find(page, "#outcomes ~ .scroll a[data-status=zero_variance]")[0].click()
    settled(page)
    assert names(page) == ["g3"]


def test_sort_by_click(page, result):
    head = heading(page, "Tissue")
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "descending"
    expected = list(result.top("Tissue", 500).index)
    shares = np.rint(10_000 * result.fractions["Tissue"])
    found = names(page)
    # To the hundredth of a percent, by which the page sorts.
    np.testing.assert_array_equal(shares[found], shares[expected[: len(found)]])
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    least = shares.dropna().sort_values(kind="stable")
    assert list(shares[names(page)]) == list(least.iloc[: len(names(page))])
    assert count(page) == "3,000 of 3,000 genes, by Tissue, ascending"
    page.execute_script("const b = document.getElementById('gene-box'); b.scrollTop = 1e9")
    settled(page)
    assert names(page)[-3:] == ["g3", "g8", "g9"], "genes without a value come last"
    other = heading(page, "Gene")
    other.find_element("tag name", "button").click()
    assert other.get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") == "none"
    assert names(page)[:3] == ["g0", "g1", "g2"]  # g10 comes after g9
    assert find(page, "#gene-box")[0].get_property("scrollTop") == 0


def test_by_keyboard_alone(page):
    """From the search through controls to a heading, which sorts, then the box, which scrolls."""
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.getElementById('search').focus()")
    press(page, "g1")
    press(page, Keys.TAB, Keys.TAB, Keys.TAB)
    assert page.switch_to.active_element.text == "Reset"
    press(page, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "gene-box"
    style = "return getComputedStyle(arguments[0]).outlineStyle"
    assert page.execute_script(style, page.switch_to.active_element) != "none"
    press(page, Keys.TAB, Keys.TAB)
    assert page.switch_to.active_element.text == "Tissue"
    head = heading(page, "Tissue")
    press(page, Keys.SPACE)
    assert head.get_attribute("aria-sort") == "descending"
    press(page, Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    assert all("g1" in name for name in names(page))
    page.execute_script("document.getElementById('gene-box').focus()")
    before = names(page)
    press(page, Keys.END)
    page.execute_async_script("setTimeout(arguments[0], 400)")  # scrolled smoothly
    settled(page)
    assert names(page)[-1] not in before


def test_names_are_text(driver, tmp_path):
    """Nothing of them is run, in the table or anywhere else."""
    evil = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
    index = [f"{evil}{i}" for i in range(6)]
    fractions = table(6).set_axis(index).rename(columns={"Tissue": evil})
    path = jaxvp.report(results(fractions), tmp_path / "r.html", call=evil)
    driver.get(path.as_uri())
    assert driver.title == "Variance partition of 6 genes"
    assert names(driver) == index
    heading(driver, "<img").find_element("tag name", "button").click()
    assert driver.title == "Variance partition of 6 genes"
    assert driver.get_log("browser") == []


def contrast(one, other):
    """Of two colours (WCAG 2.1)."""

    def luminance(colour):
        values = [float(x) / 255 for x in re.findall(r"[\d.]+", colour)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in values]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    """Every text can be read: 4.5 and more, in light and dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    found = page.execute_script(
        """
        const behind = (one) => {
          for (let at = one; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (!colour.startsWith("rgba") || colour.endsWith(", 1)")) return colour;
          }
        };
        return [...document.querySelectorAll("body *")]
          .filter((one) => [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
          .filter((one) => !["SCRIPT", "NOSCRIPT"].includes(one.tagName))
          .filter((one) => one.checkVisibility())
          .map((one) => [one.textContent.slice(0, 40), getComputedStyle(one).color, behind(one)]);
        """
    )
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(found) > 200
    poor = [one for one in found if contrast(one[1], one[2]) < 4.5]
    assert not poor, poor[:5]


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_no_width_cuts_anything_off(page, width):
    """The page itself never scrolls sideways; wide tables do, inside their boxes."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    settled(page)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_print(page, result):
    """The first rows of what is seen are printed, with a word on how many there are."""
    heading(page, "Tissue").find_element("tag name", "button").click()
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    expected = list(result.top("Tissue", 36).index)
    found = names(page)
    assert len(found) == 36 and found[0] == expected[0]
    assert not find(page, "#gene-table .space")
    note = page.execute_script("return document.getElementById('printed').textContent")
    assert note == "Printed are the first 36 of 3,000 genes."
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert find(page, "#gene-table .space")
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF") and 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 12


def test_little_is_no_error(driver, tmp_path):
    """Without a gene, without a fitted one, without random terms."""
    fractions = table(5)
    for given in (fractions.iloc[:0], fractions * np.nan, fractions):
        path = jaxvp.report(results(given, "non_finite"), tmp_path / "r.html")
        driver.get(path.as_uri())
        assert driver.get_log("browser") == []
        assert len(names(driver)) == len(given)
    assert [head.text.strip() for head in find(driver, "#gene-table thead th")][2:-1] == list(
        results(fractions).sort_columns().fractions.columns
    )
    assert set(NAMES) == set(fractions.columns)
