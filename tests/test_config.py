"""Config files: what they may say, and what they are told when they say something else."""

from dataclasses import fields
from pathlib import Path

import pytest

from jaxvp.config import ConfigError, FitConfig, load


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "fit.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_key(written, tmp_path):
    config = load(
        written(
            'expression = "a/x.csv"\nmetadata = "/data/m.csv"\nformula = "~ (1|g)"\nout = "r/1"\n'
            'sample_column = "id"\ngene_column = "symbol"\ngenes_in = "rows"\nformat = "csv"\n'
            'layer = "counts"\nreport = true\nweights = "w.csv"\n'
            'reml = true\nsolver = "optax"\nblock_size = 64\ndataset = "influenza"\n'
            'shard = "2/8"\ndask = "tcp://host:8786"\n'
        )
    )
    assert config == FitConfig(
        expression=tmp_path / "a" / "x.csv",
        metadata=Path("/data/m.csv"),
        weights=tmp_path / "w.csv",
        dataset="influenza",
        formula="~ (1|g)",
        out=tmp_path / "r" / "1",
        sample_column="id",
        gene_column="symbol",
        genes_in="rows",
        layer="counts",
        format="csv",
        report=True,
        reml=True,
        solver="optax",
        block_size=64,
        shard="2/8",
        dask="tcp://host:8786",
    )
    assert all(getattr(config, field.name) is not None for field in fields(FitConfig))


def test_paths_are_relative_to_the_file(written, tmp_path, monkeypatch):
    path = written('expression = "x.csv"')
    monkeypatch.chdir("/")
    assert load(path).expression == tmp_path / "x.csv"


def test_given_options_go_over_the_file():
    config = FitConfig(formula="~ a", reml=True)
    assert config.updated(formula="~ b", reml=None) == FitConfig(formula="~ b", reml=True)
    assert config.updated(reml=False).reml is False


@pytest.mark.parametrize(
    "text, message",
    [
        ('formla = "~ a"', r"unknown key 'formla'; did you mean 'formula'"),
        ('genes-in = "rows"', r"unknown key 'genes-in'; did you mean 'genes_in'"),
        ('[model]\nformula = "~ a"', r"unknown key 'model'; known are expression, .*, block_size"),
        ("formula = 3", "formula must be a text in quotes, not 3"),
        ('reml = "yes"', "reml must be true or false, not 'yes'"),
        ("block_size = true", "block_size must be a positive whole number, not True"),
        ("block_size = 0", "block_size must be a positive whole number, not 0"),
        ("block_size = 1e3", "block_size must be a positive whole number, not 1000.0"),
        ('format = "xlsx"', "format must be 'parquet' or 'csv', not 'xlsx'"),
        ('dataset = "../x"', "dataset must be 'influenza', not '../x'"),
        ("formula = ~ a", r"not valid TOML: .*line 1"),
        ('formula = "~ a"\nformula = "~ b"', "not valid TOML"),
        (f"block_size = {'9' * 5000}", "not valid TOML"),
        (f"formula = {'[' * 5000}", "not valid TOML"),
        ('out = "a\\u0000b"', "out = .* is no path"),
        ('expression = "a\\u0000b"', "expression = .* is no path"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_wrong_is_said(written, text, message):
    path = written(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such config file"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"formula = '\xff\xfe'")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load(tmp_path / "bytes.toml")


@pytest.mark.parametrize("out", ["..", ".", "../elsewhere", "/tmp/x", "a/../../x", "link/x", ""])
def test_a_file_writes_only_below_its_folder(written, tmp_path, out):
    (tmp_path / "link").symlink_to("/tmp")
    with pytest.raises(ConfigError, match="not inside the folder of the config file.*--out"):
        load(written(f'out = "{out}"'))


def test_the_committed_example_is_valid():
    config = load(Path(__file__).parents[1] / "configs" / "influenza.toml")
    assert config.dataset == "influenza" and config.formula and config.out
