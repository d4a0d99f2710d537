"""The influenza H3N2 challenge, GEO series GSE30550: blood expression of 17 people over time.

The measurements are stored as integers of 1e-7, one Parquet column a sample; integer / 1e7 is
correctly rounded, so the doubles are exactly those of the published text
(`docs/convert_influenza.py` wrote the file and checks this).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_FOLDER = Path(__file__).parent
_SCALE = 1e7


def influenza() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Influenza H3N2 challenge: expression of 4,147 genes in 252 blood samples.

    17 volunteers were inoculated with influenza A (H3N2); their blood was drawn at 15 times in
    108 hours (three samples are missing). Nine fell ill. A repeated-measures design, in which many
    genes have a variance component that is exactly zero.

    Returns
    -------
    expression : DataFrame, 4147 genes x 252 samples, float64
        log2 intensities, rows named by gene symbol, columns by GEO sample (``GSM...``).
    metadata : DataFrame, 252 samples x 5 variables
        ``Subject`` (17), ``Hours`` after inoculation (15 times, integers; the baseline is 0),
        ``Condition`` (``sx`` fell ill, ``asx`` did not), ``Gender``, ``Age`` (years). The index is
        that of the columns of `expression`.

    Notes
    -----
    Source: GEO series GSE30550; Huang Y et al. (2011), "Temporal dynamics of host molecular
    responses differentiate symptomatic and asymptomatic influenza A infection", PLoS Genetics
    7(8):e1002234, doi:10.1371/journal.pgen.1002234. Cite both where the data are used.

    Licence: the measurements are public data of the Gene Expression Omnibus. This copy was read
    from ``fluExample.RData`` of the package qusage 2.32.0 (GPL-2 or later), of which nothing else
    is contained here. See NOTICE.

    Examples
    --------
    >>> expression, metadata = influenza()
    >>> expression.shape, metadata.Subject.nunique()
    ((4147, 252), 17)
    """
    import pandas as pd
    from pyarrow.parquet import ParquetFile

    metadata = pd.read_csv(_FOLDER / "gse30550_metadata.csv", index_col="sample")
    table = ParquetFile(_FOLDER / "gse30550_expression.parquet").read()
    genes = pd.Index(table["gene"].to_pylist(), name="gene")
    samples = pd.Index(table.column_names[1:], name="sample")
    # Samples are rows in memory: the table handed out is a transposed view of it.
    values = np.empty((len(samples), len(genes)))
    for row, column in zip(values, table.columns[1:], strict=True):
        np.divide(column.to_numpy(), _SCALE, out=row)
    return pd.DataFrame(values.T, index=genes, columns=samples, copy=False), metadata
