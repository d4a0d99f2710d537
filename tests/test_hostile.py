"""Hostile formulas, tables and options: a correct result, or an error of ours that says why.

By the function, or by the command on files; in either precision, by either solver, here or by an
executor.

Never a traceback from inside JAX, pandas or formulaic, never a hang, never a row that is wrong and
does not say so. Each call of `jaxvp.fit` is drawn with its answer: the model as n x n matrices
(`dense`, NumPy alone), against which every gene is checked, the status of genes that cannot be
fitted, or a word of the error that must come. 200 calls in `make test`, 2,000 in `make fuzz`.

Few programs are compiled: a model of another shape is followed up to its solver, and its design and
measurements are compared.
"""

import signal
import threading
import warnings
from collections import Counter
from contextlib import contextmanager

import jaxtyping
import numpy as np
import pytest
from dense import best, fits, shares
from hostile_breaks import BREAKS, Call, scrambled
from hostile_cases import SHAPES, Study, studies
from hostile_dress import dressed
from hostile_ways import commands, exact, run, ways
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxvp
from jaxvp import api
from jaxvp.batch import compiled

OURS = (jaxvp.FormulaError, jaxvp.DesignError, jaxvp.DataError, jaxvp.FitError)
FUZZ = settings().max_examples > 200
CASES, PROGRAMS = (2000, 32) if FUZZ else (200, 4)  # a fit with weights takes two
COMPILED = ("none", "one", "two")
SECONDS = (
    600 if FUZZ else 120
)  # a case; one that compiles takes a few, many times that on a busy machine


class Elsewhere(Exception):
    """This model has a shape that is not compiled here."""


class Programs(set):
    """What `jaxvp` has compiled, and how much more it may: `SHAPES`, and some others in `FUZZ`."""

    more = True
    refused = 0

    def __contains__(self, key):
        known = super().__contains__(key)
        if not known and not (self.more and len(self) < PROGRAMS):
            self.refused += 1
            raise Elsewhere
        return known


@pytest.fixture(scope="module")
def programs():
    return Programs()


@pytest.fixture(scope="module")
def outcomes():
    return Counter()


@contextmanager
def time_limit(seconds):
    """An error in the main thread; what does not come back to Python is pytest's own to end."""

    def late(*_):
        raise TimeoutError(f"more than {seconds} seconds")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@st.composite
def calls(draw):
    """Most of them are right, in odd clothes; others have one thing wrong, or any formula."""
    study, rng = draw(studies())
    if draw(st.integers(0, 9)) == 0:
        call = draw(commands(study, rng))
        if draw(st.integers(0, 2)):
            return call
        return call._replace(formula=str(draw(scrambled(study.formula))), study=None, unsure=True)
    dress = draw(dressed(study, rng))
    unsure = dress.unsure or study.shape not in SHAPES
    call = Call(
        dress.expression, study.formula, dress.metadata, dress.options, dress.study, None, unsure,
        dress.how,
    )  # fmt: skip
    kind = draw(st.sampled_from(["right"] * 5 + ["broken"] * 3 + ["formula"] * 2))
    if kind == "formula":
        call = call._replace(formula=draw(scrambled(study.formula)), study=None, unsure=True)
    if kind != "broken":
        return draw(ways(call, study))
    name = draw(st.sampled_from(sorted(BREAKS)))
    changed = BREAKS[name](call, draw)
    if changed is not None:
        call, words = changed
        call = call._replace(wrong=words, how=(*call.how, name))
        return call._replace(study=None, unsure=True) if words is None else call
    return call


@pytest.fixture(scope="module")
def fitted(programs, tmp_path_factory):
    """Calls `jaxvp.fit`: the result, None where there is none here, and the study prepared."""

    def call(given):
        seen = []

        def prepare(*args, **options):
            seen.append(real(*args, **options))
            return seen[-1]

        known = given.study is not None and given.study.shape in COMPILED
        programs.more = FUZZ or (known and exact(given.options))
        programs.refused = 0
        real, before = api.prepare, compiled._compiled
        api.prepare, compiled._compiled = prepare, programs
        cache, jaxvp.enable_compile_cache = jaxvp.enable_compile_cache, lambda: None
        # Users have no checked annotations: what is passed must be looked at without them.
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            if given.command:
                result = run(given, tmp_path_factory.mktemp("command"))
            else:
                result = jaxvp.fit(given.expression, given.formula, given.metadata, **given.options)
            result = None if programs.refused else result  # an executor: blocks that failed
        except (Elsewhere, jaxvp.FitError):
            if not programs.refused:
                raise
            result = None
        finally:
            api.prepare, compiled._compiled = real, before
            jaxvp.enable_compile_cache = cache
            jaxtyping.config.update("jaxtyping_disable", False)
        return result, seen[-1]

    return call


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@settings(
    max_examples=CASES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(call=calls())
def test_any_call_is_right_or_refused(fitted, outcomes, call):
    with time_limit(SECONDS), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, prepared = fitted(call)
        except OURS as error:
            outcomes[type(error).__name__] += 1
            check_error(call, error)
            return
        finally:
            assert {w.category for w in caught} <= {UserWarning}, [str(w.message) for w in caught]
    assert call.wrong is None, f"{call.how} went through"
    check_input(call, prepared)
    if result is None:
        outcomes["elsewhere"] += 1
    else:
        outcomes["fitted"] += 1
        check_result(call, result, prepared)


def test_the_calls_were_of_all_kinds(outcomes, programs):
    """A fuzz test that refuses everything would be green, too."""
    assert len(programs) <= PROGRAMS
    assert set(outcomes) >= {"fitted", "elsewhere", "DataError", "DesignError", "FormulaError"}
    assert outcomes["fitted"] > 0.3 * sum(outcomes.values())


def check_error(call, error):
    """It says something, names what was made wrong, and nothing right is refused."""
    text = str(error)
    assert text.strip()
    if call.wrong is not None:
        named = any(word in text for word in call.wrong)
        assert named or call.unsure, (call.how, call.wrong, text)
    elif isinstance(error, jaxvp.FitError):
        assert call.options.get("on_error") == "raise", (call.how, text)
        may_fail = not exact(call.options) or set(call.study.expected) != {"converged"}
        assert call.study is None or may_fail, (call.how, text)
    else:
        assert call.unsure, (call.how, text)


def check_input(call, prepared):
    """The samples, X, the groups and the measurements are those of the study."""
    study = call.study
    if study is None:
        return
    places = where(prepared, study)
    X = prepared.design.X[places]
    np.testing.assert_allclose(np.abs(X), np.abs(study.X), rtol=1e-9, atol=1e-12)
    groups = [Z for block in study.random.values() for Z in block]
    for codes, Z in zip(prepared.design.codes, groups, strict=True):
        own = (Z != 0).astype(int) if study.slopes else Z.astype(int)
        there = own.any(axis=1)
        same = codes[places][there][:, None] == codes[places][there]
        np.testing.assert_array_equal(same, (own @ own.T > 0)[np.ix_(there, there)])
    block = prepared.measurements.block(0, study.Y.shape[1])[places]
    np.testing.assert_array_equal(np.asarray(block, float), study.Y)


def where(prepared, study):
    """The places of the study's samples in the design, by their names."""
    names = prepared.measurements.sample_names.tolist()
    assert sorted(map(repr, names)) == sorted(map(repr, study.labels))
    order = {name: i for i, name in enumerate(study.labels)}
    return np.argsort([order[name] for name in names])


def check_result(call, result, prepared):
    """Every gene against dense algebra."""
    study = call.study
    status = result.diagnostics["status"].tolist()
    if study is not None:
        for found, expected, kind in zip(status, study.expected, study.kinds, strict=True):
            late = found == "max_iterations" and not exact(call.options)
            assert expected in ("?", found) or late, (kind, found, expected)
        assert call.options.get("on_error") != "raise" or set(status) == {"converged"}
        random = [*study.components]
        assert list(result.fractions)[: len(random)] == sorted(random)
    fractions = result.fractions.to_numpy()
    for gene, what in enumerate(status):
        if what != "converged":
            assert np.isnan(fractions[gene]).all()
            assert np.isnan(result.log_likelihood.iloc[gene])
            continue
        assert np.isfinite(fractions[gene]).all() and (fractions[gene] >= 0).all()
        assert fractions[gene].sum() == pytest.approx(1, abs=1e-12)
        if study is None:
            if prepared.weights is None and not prepared.design.slopes:
                check_gene(of_design(prepared), gene, result, exact(call.options))
        else:
            check_gene(study, gene, result, exact(call.options))


def of_design(prepared):
    """A study of which nothing is known: the design's word is taken for what the formula means.

    (Formulas have tests of their own; here it is their fit that is looked at.)
    """
    design = prepared.design
    Y = np.asarray(prepared.measurements.block(0, prepared.genes), float)
    blocks = {str(i): [np.eye(codes.max() + 1)[codes]] for i, codes in enumerate(design.codes)}
    owner = np.array(design.term_of_column)
    columns = [[int(j)] for j in np.flatnonzero(owner >= 0)]
    terms = [np.flatnonzero(owner == i).tolist() for i in range(len(design.terms))]
    return Study(
        *(design.formula.text, "", prepared.reml, {}, {}, design.X, columns if blocks else terms),
        *(blocks, list(design.random_names), Y, [], [], "unknown"),
    )


def check_gene(study, gene, result, digits):
    """Deviance, sigma and fractions; `digits`: to those of float64."""
    model, y = study.model(gene)
    theta = result.theta.to_numpy()[gene][None]
    dense = fits(model, y, theta)
    deviance = -2 * result.log_likelihood.iloc[gene]
    scale = max(1, abs(deviance))
    assert deviance == pytest.approx(dense.deviance[0], abs=(1e-7 if digits else 1e-4) * scale)
    n, p = model.X.shape
    free = 1 if model.blocks else np.sqrt(n / (n - p))
    sigma = dense.sigma[0] * free
    assert result.sigma.iloc[gene] == pytest.approx(sigma, rel=1e-6 if digits else 1e-3)
    if model.blocks:
        lowest = best(model, y, theta[0])
        most = lowest + (1e-6 if digits else 1e-4 * scale)
        assert deviance <= most, (study.kinds, theta, deviance - lowest)
    expected = shares(model, theta[0], dense.sigma[0], dense.beta[0], study.terms)
    k = len(study.components)
    order = [*sorted(range(k), key=study.components.__getitem__), *range(k, len(expected))]
    found = result.fractions.to_numpy()[gene]
    close = {"rtol": 1e-5, "atol": 1e-9} if digits else {"rtol": 1e-2, "atol": 1e-3}
    np.testing.assert_allclose(found, expected[order], **close)
