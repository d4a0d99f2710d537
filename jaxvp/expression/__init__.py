"""Measurements of any container, aligned with the metadata by sample name, served in gene blocks.

`align` finds the samples that both sides know (`names`), checks what the container holds
(`values`) and returns an `Expression` (`blocks`); `find_again` (`again`) finds those of a fit once
more. Nothing is copied there; later, a block of genes costs what that block costs. `read_table`
(`files`) makes a table with names of a file.

Everything that makes measurements unfit is found here. What is wrong with one gene alone (NaN,
a constant) is not: that gene gets a status.
"""

from jaxvp.expression.again import Again, find_again
from jaxvp.expression.alignment import align
from jaxvp.expression.blocks import Expression
from jaxvp.expression.files import read_table
from jaxvp.expression.names import DataError
from jaxvp.expression.opening import open_file
from jaxvp.expression.origin import digest
from jaxvp.expression.reopening import Reader, reader_of
from jaxvp.expression.weights import find_weights, split_weights

__all__ = [
    "Again",
    "DataError",
    "Expression",
    "Reader",
    "align",
    "digest",
    "find_again",
    "find_weights",
    "open_file",
    "read_table",
    "reader_of",
    "split_weights",
]
