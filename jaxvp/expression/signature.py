"""What a file is by its first bytes, where its name says something else.

Used when a reader has given up: what the user has to do differs between a file that was cut short
and one of another kind.
"""

from __future__ import annotations

from pathlib import Path

NUMPY = b"\x93NUMPY"
# First bytes: what it is, and the endings of names that are read as such.
_SIGNATURES = {
    b"PAR1": ("Parquet", (".parquet", ".pq")),
    NUMPY: ("an array of numpy.save", (".npy",)),
    b"\x89HDF\r\n\x1a\n": ("HDF5", (".h5ad",)),
    b"\x1f\x8b": ("a file compressed by gzip", (".gz",)),
    b"BZh": ("a file compressed by bzip2", (".bz2",)),
    b"\x28\xb5\x2f\xfd": ("a file compressed by zstd", (".zst",)),
    b"PK\x03\x04": ("a zip archive (Excel, npz)", ()),
    b"\xd0\xcf\x11\xe0": ("a sheet of Excel", ()),
    b"ARROW1": ("a file of Arrow (Feather)", ()),
    b"%PDF": ("a PDF", ()),
    b"\x80": ("a pickle of Python", ()),
}
TEXT = "text"
_TEXT = (TEXT, (".csv", ".tsv"))
_PAGE = ("a web page", ())
DAMAGED = "it is damaged or was cut short: copy or write it again"


def looks_like(head: bytes) -> tuple[str, tuple[str, ...]] | None:
    """What begins like this, and the endings of names of its kind; None of what is unknown.

    Parameters
    ----------
    head
        The first bytes of a file.
    """
    for first, kind in _SIGNATURES.items():
        if head.startswith(first):
            return kind
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return _PAGE
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # no character that was cut in two
            return None
        text = head[: error.start].decode("utf-8-sig")
    return _TEXT if text and all(c.isprintable() or c in "\t\r\n" for c in text) else None


def remedy(path: Path) -> str:
    """What to do about a file that its reader cannot read."""
    try:
        with open(path, "rb") as file:
            found = looks_like(file.read(200))
    except OSError:  # a folder, or one that is gone
        return DAMAGED
    if found is None or path.suffix.lower() in found[1]:
        return DAMAGED
    kind, suffixes = found
    if not suffixes:
        return f"it begins like {kind}, which is not read: save its table as .csv or .parquet"
    return f"it begins like {kind}: if it is that, its name must end in {' or '.join(suffixes)}"
