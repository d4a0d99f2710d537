"""The command `jaxvp`: what `jaxvp.fit`, `simulate` and `datasets` do, from a shell.

This file holds what all commands share: errors as one clear message, warnings as one line each,
exit codes that scripts can use. Whatever takes long to import is imported by the command that needs
it, so that `--help` answers at once.

Exit codes: 0 done, 1 a bug (with its traceback), 2 wrong usage or input (nothing was written),
3 done, but with `--strict` some genes could not be fitted (`check`: the model cannot be fitted),
4 not done: what was finished is kept, the same command goes on, 130 interrupted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import click

import jaxvp
from jaxvp.cli.check import check
from jaxvp.cli.demo import demo
from jaxvp.cli.fit import fit
from jaxvp.cli.merge import merge
from jaxvp.cli.simulate import simulate
from jaxvp.config import ConfigError

BAD_INPUT = 2
UNFINISHED = 4
INTERRUPTED = 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  jaxvp demo
  jaxvp check -m samples.csv -f "~ Age + (1|Individual) + (1|Tissue)"
  jaxvp fit -e expression.csv.gz -m samples.csv -f "~ Age + (1|Individual) + (1|Tissue)" -o results
  jaxvp fit --config study.toml
  jaxvp simulate --genes 2000 --samples 120 --out study

\b
Exit codes:
  0    done
  1    a bug; the traceback says where
  2    wrong usage or input; nothing was written
  3    done, but some genes could not be fitted (only with --strict); check: the model cannot be
  4    not done (a full disk, lost workers); what was finished is kept, the same command goes on
  130  interrupted; no half-written file is left
""",
)
@click.version_option(jaxvp.__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Partition the variance of every gene of a study by exact linear mixed models."""


cli.add_command(check)
cli.add_command(fit)
cli.add_command(merge)
cli.add_command(demo)
cli.add_command(simulate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = cli.main(arguments, prog_name="jaxvp", standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return BAD_INPUT
        except (KeyboardInterrupt, click.Abort):
            click.echo("jaxvp: interrupted", err=True)
            return INTERRUPTED
        except (ValueError, NotImplementedError, OSError) as error:
            if not _is_about_input(error):
                raise
            click.echo(f"Error: {error}", err=True)
            return UNFINISHED if _is_unfinished(error) else BAD_INPUT
    return code or 0


def _is_unfinished(error: Exception) -> bool:
    """Whether the run is to be started again."""
    from jaxvp.runs import UnfinishedError

    return isinstance(error, UnfinishedError)


def _is_about_input(error: Exception) -> bool:
    """Whether an error is the user's to mend; any other is ours, and keeps its traceback."""
    if isinstance(error, (ConfigError, NotImplementedError, OSError)):
        return True
    from jaxvp.runs import RunError

    known = (jaxvp.FormulaError, jaxvp.DesignError, jaxvp.DataError, RunError)
    return isinstance(error, known)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    click.echo(f"Warning: {message}", err=True)
