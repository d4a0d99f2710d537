"""Runs of hours: what is finished is on the disk, and a run that was killed goes on where it was.

The unit is a block of genes, whose numbers never depend on other blocks: fitted today or tomorrow,
alone or among others, it has the same bits (same versions, kind of device and block size). So the
tables of an interrupted run are those of an uninterrupted one, byte for byte. `Folder` is a run;
`manifest` says what belongs together, `parts` holds finished blocks, `lock` keeps a second run out,
`shards` splits a study over the jobs of a queue and `merge` joins them.
"""

from jaxvp.runs.errors import RunError, UnfinishedError
from jaxvp.runs.folder import Folder
from jaxvp.runs.lock import locked
from jaxvp.runs.merging import Merged, merge
from jaxvp.runs.shards import Shard

__all__ = ["Folder", "Merged", "RunError", "Shard", "UnfinishedError", "locked", "merge"]
