"""Whether the data set that step 01 wrote can be measured, and what about it deserves a look."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.core.errors import DataError
from utils.data.labels import MISSING_ID, UNKNOWN_ID, LabelMapping
from utils.data.reader import FIX, iter_rows

BLOCK_ROWS = 1024
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
IMBALANCE = 10
"""From this ratio of the largest label to the smallest on, accuracy says little about the small ones."""


def validate_dataset(
    path: Path, mapping: LabelMapping, count_tokens: Callable[[list[str]], list[int]], max_length: int
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read the whole data set once; 16 bytes and a length a row are kept.

    Lone surrogates are not looked for: no UTF-8 file holds one, and step 01 records those that it replaced.

    Returns:
        The findings by name, and warnings: what does not hinder a measurement but may mislead its reader.

    Raises:
        DataError: missing, not UTF-8, a missing column, no rows, only empty texts, or an id without a label.
    """
    seen: set[bytes] = set()
    lengths: list[int] = []
    labels: Counter[int] = Counter({number: 0 for number in range(len(mapping.names))})
    texts: Counter[str] = Counter()
    for rows in iter_rows(path, BLOCK_ROWS):
        for row, number in enumerate(rows.label_ids.tolist(), start=rows.start):
            if not UNKNOWN_ID <= number < len(mapping.names):
                said = f"Row {row} has the label id {number}; the label mappings end at {len(mapping.names) - 1}."
                raise DataError(said, where=path, fix=FIX)
            labels[number] += 1
        for text in rows.texts:
            seen.add(hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest())
            texts.update({"empty": not text.strip(), "U+FFFD": "\ufffd" in text, "NUL": "\0" in text})
        lengths += count_tokens(rows.texts)
    if texts["empty"] == len(lengths):
        raise DataError("Every text of the data set is empty." if lengths else "The data set has no rows.", where=path, fix=FIX)
    unlabelled = labels.pop(MISSING_ID, 0) + labels.pop(UNKNOWN_ID, 0)
    repeated, cut = len(lengths) - len(seen), sum(n > max_length for n in lengths)
    largest, smallest = max(labels, key=labels.__getitem__), min(labels, key=labels.__getitem__)
    tokens = zip(QUANTILES, np.quantile(lengths, QUANTILES, method="higher"), strict=True)
    findings = {
        "Rows": f"{len(lengths):,}", "Empty texts": f"{texts['empty']:,}", "Duplicate texts": f"{repeated:,}",
        "Labels that occur": f"{sum(map(bool, labels.values()))} of {len(labels)}; rows without a label: {unlabelled:,}",
        "Largest label": f"{mapping.names[largest]} ({labels[largest]:,}); "
        f"smallest: {mapping.names[smallest]} ({labels[smallest]:,})",
        "Encoding": f"{texts['U+FFFD']:,} texts with U+FFFD, {texts['NUL']:,} with NUL",
        "Tokens a text": ", ".join(f"p{q * 100:.0f} {n}" for q, n in tokens),
        f"Cut at {max_length} tokens": f"{cut:,} rows ({cut / len(lengths):.1%})",
    }
    unused = [mapping.names[number] for number, rows_of in labels.items() if not rows_of]
    warnings = {
        f"{texts['empty']:,} texts are empty": texts["empty"],
        f"{repeated:,} texts repeat an earlier one": repeated,
        f"{unlabelled:,} rows have no label that the model knows and are left out of accuracy": unlabelled,
        f"labels without a row: {', '.join(unused)}": unused,
        f"the largest label has over {IMBALANCE} times the rows of the smallest: read F1 (macro) beside accuracy":
            labels[largest] > IMBALANCE * min(filter(None, labels.values()), default=0),
        f"{texts['U+FFFD']:,} texts hold U+FFFD: they were decoded wrongly once": texts["U+FFFD"],
        f"{texts['NUL']:,} texts hold NUL characters": texts["NUL"],
        f"max_length {max_length} cuts {cut:,} rows": cut,
    }
    return findings, tuple(text for text, holds in warnings.items() if holds)
