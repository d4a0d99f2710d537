"""How the influenza table became the file in `jaxvp/datasets/`. Run by a developer, once.

    python docs/convert_influenza.py EXPRESSION.csv.gz METADATA.csv

The table has 8 significant digits and values between 3 and 15, so that value x 1e7 is an integer
of 31 bits and integer / 1e7, correctly rounded, is the very double that the text stands for. Split
into bytes and compressed these integers take 3.6 MB, the gzipped text 4.7.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SCALE = 10_000_000
TARGET = Path(__file__).parents[1] / "jaxvp" / "datasets"


def convert(expression: str, metadata: str) -> None:
    table = pd.read_csv(expression, index_col=0, keep_default_na=False)
    values = table.to_numpy(dtype=np.float64)
    integers = np.rint(values * SCALE).astype(np.int32)
    if not np.array_equal(integers / SCALE, values):
        raise SystemExit("the table has more digits than 1e-7 holds")
    columns = {"gene": pa.array(table.index.astype(str))}
    columns |= {name: integers[:, i] for i, name in enumerate(table.columns)}
    encoding = {name: "BYTE_STREAM_SPLIT" for name in table.columns} | {"gene": "PLAIN"}
    pq.write_table(
        pa.table(columns),
        TARGET / "gse30550_expression.parquet",
        use_dictionary=False,
        column_encoding=encoding,
        compression="zstd",
        compression_level=19,
        write_statistics=False,
    )
    shutil.copyfile(metadata, TARGET / "gse30550_metadata.csv")


if __name__ == "__main__":
    convert(*sys.argv[1:])
