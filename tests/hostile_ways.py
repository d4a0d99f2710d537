"""Ways to run a call: solver, precision, devices, an executor, errors raised; or the command.

They change nothing of what a result must be, but for what two of them cannot do (an executor with
devices, the adapter solver with slopes), which has to be said.
"""

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
from hostile_breaks import Call
from hypothesis import strategies as st

import jaxvp
from jaxvp.cli import main

POOL = ThreadPoolExecutor(2)
FORMATS = ["csv", "csv.gz", "tsv", "parquet", "npy"]


def exact(options):
    """Whether the digits are those of float64 and Newton's method."""
    return options.get("dtype", "float64") == "float64" and options.get("solver") != "optax"


@st.composite
def ways(draw, call, study):
    """The call with options of its run."""
    import jax

    options, wrong = {}, []
    if draw(st.integers(0, 3)) == 0:
        options["solver"] = draw(st.sampled_from(["newton", "optax"]))
        if options["solver"] == "optax" and study.slopes:
            wrong.append('random slopes need solver="newton"')
    if draw(st.integers(0, 3)) == 0:
        options["dtype"] = draw(st.sampled_from(["float64", "float32"]))
    if draw(st.integers(0, 3)) == 0:
        options["on_error"] = draw(st.sampled_from(["status", "raise"]))
    if draw(st.integers(0, 3)) == 0:
        options["devices"] = draw(st.sampled_from([jax.devices()[:1], jax.devices()[0], None]))
    if draw(st.integers(0, 3)) == 0:
        options["executor"] = draw(st.sampled_from([POOL, None]))
    if options.get("devices") is not None and options.get("executor") is not None:
        wrong = ["devices= is for this process"]
    how = tuple(f"{name}: {value!r}"[:40] for name, value in options.items())
    call = call._replace(options=call.options | options, how=(*call.how, *how))
    if wrong and call.study is not None:
        return call._replace(wrong=tuple(wrong))
    return call


@st.composite
def commands(draw, study, rng):
    """`jaxvp fit` on files of the study, plain ones, whatever its variables and formula are called.

    (Clothes that a file does not keep, such as types of columns, are for calls of the function.)
    """
    n, genes = study.Y.shape
    labels = [f"s{i}" for i in range(n)]
    columns = {}
    for role, name in study.names.items():
        values = study.columns[role]
        columns[name] = values if role in "xzw" else [f"level {value}" for value in values]
    metadata = pd.DataFrame(columns, pd.Index(labels, name="sample of the study"))
    if study.shape == "one" or (study.weightable and draw(st.booleans())):
        W = rng.gamma(2.0, 1.0, (n, genes)) * (rng.random((n, genes)) > 0.05)
        study = study.weighted(W, True)
    names = [f"g{i}" for i in range(genes)]
    expression = pd.DataFrame(study.Y, metadata.index, names)
    options = {
        "suffix": draw(st.sampled_from(FORMATS)),
        "block": draw(st.sampled_from([None, 1, 3])),
        "strict": draw(st.booleans()),
    }
    return Call(
        expression, study.formula, metadata, options, study._replace(labels=tuple(labels)), None,
        study.shape == "other", ("command", options["suffix"]), True,
    )  # fmt: skip


def save(frame, path):
    suffix = path.name.split(".", 1)[1]
    if suffix == "npy":
        np.save(path, frame.to_numpy())
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if suffix == "tsv" else ",")
    return str(path)


def run(call, folder):
    """What `fit` returns, as far as it is compared, from the tables that the command writes."""
    options, suffix, out = call.options, call.options["suffix"], folder / "out"
    words = ["fit", "-e", save(call.expression, folder / f"x.{suffix}")]
    words += ["-m", save(call.metadata, folder / "m.csv"), f"--formula={call.formula}"]
    words += ["-o", str(out)]
    words += ["--block-size", str(options["block"])] if options["block"] else []
    words += ["--strict"] if options["strict"] else []
    if call.study is not None:
        words += ["--reml"] if call.study.reml else []
        if call.study.weights is not None:
            weights = pd.DataFrame(call.study.weights, *call.expression.axes)
            words += ["--weights", save(weights, folder / f"w.{suffix}")]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    assert "Traceback" not in said.getvalue()
    if code == 2:
        assert not out.exists()
        raise jaxvp.DataError(said.getvalue().removeprefix("Error: "))
    frames = {}
    for path in out.glob("*.parquet"):
        table = pd.read_parquet(path)
        frames[path.stem] = table if table.index.name else table.set_index(table.columns[0])
    for name in ("sigma", "log_likelihood"):
        frames[name] = frames[name].iloc[:, 0]
    fitted = bool((frames["diagnostics"]["status"] == "converged").all())
    assert code == (0 if fitted or not options["strict"] else 3), said.getvalue()
    return SimpleNamespace(**frames)
