"""Whether the data set that step 01 wrote can be measured, and what about it deserves a look."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.core.errors import DataError
from utils.data.labels import UNKNOWN_ID, LabelMapping
from utils.data.reader import FIX, iter_rows

BLOCK_ROWS = 1024
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
IMBALANCE = 10
"""From this ratio of the largest label to the smallest on, accuracy says little about the small ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What was counted; every figure is rows unless its name says otherwise.

    Args:
        label_counts: rows of each label, in the order of the ids.
        token_quantiles: tokens of an uncut text at each of ``QUANTILES``.
        cut_rows: rows with more than ``max_length`` tokens.
        warnings: what does not hinder a measurement but may mislead its reader.
    """

    num_rows: int
    empty_texts: int
    duplicate_texts: int
    unlabelled_rows: int
    label_counts: tuple[int, ...]
    replacement_texts: int
    nul_texts: int
    token_quantiles: tuple[int, ...]
    max_length: int
    cut_rows: int
    warnings: tuple[str, ...]


def validate_dataset(
    path: Path, mapping: LabelMapping, count_tokens: Callable[[list[str]], list[int]], max_length: int
) -> Validation:
    """Read the whole data set once; 16 bytes and a length a row are kept.

    Lone surrogates are not looked for: no UTF-8 file holds one, and step 01 records those that it replaced.

    Raises:
        DataError: missing, not UTF-8, a missing column, no rows, only empty texts, or an id without a label.
    """
    seen: set[bytes] = set()
    lengths: list[int] = []
    counts = np.zeros(len(mapping.names) + 1, dtype=np.int64)  # the last one counts rows without a label
    empty = replaced = nuls = 0
    for rows in iter_rows(path, BLOCK_ROWS):
        _check_ids(rows.label_ids, rows.start, len(mapping.names), path)
        counts += np.bincount(np.where(rows.label_ids < 0, len(mapping.names), rows.label_ids), minlength=len(counts))
        seen.update(hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest() for text in rows.texts)
        empty += sum(not text.strip() for text in rows.texts)
        replaced += sum("\ufffd" in text for text in rows.texts)
        nuls += sum("\0" in text for text in rows.texts)
        lengths += count_tokens(rows.texts)
    if empty == len(lengths):
        raise DataError("Every text of the data set is empty." if lengths else "The data set has no rows.", where=path, fix=FIX)
    tokens = np.array(lengths)
    result = Validation(
        num_rows=len(lengths), empty_texts=empty, duplicate_texts=len(lengths) - len(seen),
        unlabelled_rows=int(counts[-1]), label_counts=tuple(counts[:-1].tolist()), replacement_texts=replaced,
        nul_texts=nuls, token_quantiles=tuple(int(np.quantile(tokens, q, method="higher")) for q in QUANTILES),
        max_length=max_length, cut_rows=int((tokens > max_length).sum()), warnings=(),
    )
    return _with_warnings(result, mapping)


def validation_lines(result: Validation, mapping: LabelMapping) -> list[str]:
    """The findings for a person, one a line."""
    counts = result.label_counts
    largest, smallest = int(np.argmax(counts)), int(np.argmin(counts))
    quantiles = ", ".join(f"p{q * 100:.0f} {n}" for q, n in zip(QUANTILES, result.token_quantiles, strict=True))
    return [
        f"Rows: {result.num_rows:,}",
        f"Empty texts: {result.empty_texts:,}",
        f"Duplicate texts: {result.duplicate_texts:,}",
        f"Labels that occur: {sum(map(bool, counts))} of {len(counts)}; rows without a label: {result.unlabelled_rows:,}",
        f"Largest label: {mapping.names[largest]} ({counts[largest]:,}); "
        f"smallest: {mapping.names[smallest]} ({counts[smallest]:,})",
        f"Encoding: {result.replacement_texts:,} texts with U+FFFD, {result.nul_texts:,} with NUL",
        f"Tokens a text: {quantiles}",
        f"Cut at {result.max_length} tokens: {result.cut_rows:,} rows ({result.cut_rows / result.num_rows:.1%})",
    ]


def _check_ids(ids: np.ndarray[tuple[int, ...], np.dtype[np.int64]], start: int, num_labels: int, path: Path) -> None:
    wrong = np.flatnonzero((ids < UNKNOWN_ID) | (ids >= num_labels))
    if len(wrong):
        raise DataError(
            f"Row {start + wrong[0]} has the label id {ids[wrong[0]]}; the label mappings end at {num_labels - 1}.",
            where=path, fix=FIX,
        )


def _with_warnings(result: Validation, mapping: LabelMapping) -> Validation:
    counts = result.label_counts
    unused = [name for name, count in zip(mapping.names, counts, strict=True) if not count]
    found = {
        f"{result.empty_texts:,} texts are empty": result.empty_texts,
        f"{result.duplicate_texts:,} texts repeat an earlier one": result.duplicate_texts,
        f"{result.unlabelled_rows:,} rows have no label that the model knows and are left out of accuracy": result.unlabelled_rows,
        f"labels without a row: {', '.join(unused)}": unused,
        f"the largest label has over {IMBALANCE} times the rows of the smallest: read F1 (macro) beside accuracy":
            max(counts) > IMBALANCE * min((n for n in counts if n), default=0),
        f"{result.replacement_texts:,} texts hold U+FFFD: they were decoded wrongly once": result.replacement_texts,
        f"{result.nul_texts:,} texts hold NUL characters": result.nul_texts,
        f"max_length {result.max_length} cuts {result.cut_rows:,} rows": result.cut_rows,
    }
    return replace(result, warnings=tuple(text for text, holds in found.items() if holds))
