"""Checks the data set that step 01 wrote, and describes its texts, labels and tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import DataError
from utils.data.labels import MISSING_ID, UNKNOWN_ID, LabelMapping
from utils.data.reader import FIX, Rows, iter_rows
from utils.schema.warning_codes import WarningCode, with_code

BLOCK_ROWS = 1024
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
IMBALANCE = 10
"""From this ratio of the largest label to the smallest on, accuracy hardly reflects small ones."""
MANY_UNKNOWN_TOKENS = 0.05
"""From this share of unknown tokens on, the tokenizer does not fit the texts or the model.

One that fits has almost none.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """Tokens of some texts.

    Args:
        lengths: tokens of each text, special ones included, before truncation.
        num_ordinary: tokens of the texts themselves, with the unknown token, without special ones.
        num_unknown: those of them that are the unknown token.
        num_lost_texts: texts that are not blank and become nothing but special and unknown tokens.
    """

    lengths: tuple[int, ...]
    num_ordinary: int
    num_unknown: int
    num_lost_texts: int


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> TokenCounts:
    """Tokenize the texts without truncation and count their tokens.

    A token that the tokenizer adds itself is special even if it is the unknown token too, as in
    GPT-2's vocabulary.
    """
    if not texts:
        return TokenCounts(lengths=(), num_ordinary=0, num_unknown=0, num_lost_texts=0)
    encoded = tokenizer(list(texts), verbose=False, return_special_tokens_mask=True)
    unknown_id = tokenizer.unk_token_id
    special_ids = set(tokenizer.all_special_ids)
    lengths: list[int] = []
    num_ordinary = 0
    num_unknown = 0
    num_lost_texts = 0
    masks = encoded["special_tokens_mask"]
    for text, ids, mask in zip(texts, encoded["input_ids"], masks, strict=True):
        ordinary = []
        for token, was_added in zip(ids, mask, strict=True):
            is_special = token in special_ids and token != unknown_id
            if not was_added and not is_special:
                ordinary.append(token)
        unknown = ordinary.count(unknown_id)
        lengths.append(len(ids))
        num_ordinary += len(ordinary)
        num_unknown += unknown
        if text.strip() and unknown == len(ordinary):
            num_lost_texts += 1
    return TokenCounts(
        lengths=tuple(lengths),
        num_ordinary=num_ordinary,
        num_unknown=num_unknown,
        num_lost_texts=num_lost_texts,
    )


@dataclass(kw_only=True)
class _Totals:
    """Sums over one pass through the data set; it saves 16 bytes and a length for each row."""

    num_labels: int
    seen: set[bytes] = field(default_factory=set)
    lengths: list[int] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)
    empty: int = 0
    replaced: int = 0
    nul: int = 0
    ordinary_tokens: int = 0
    unknown_tokens: int = 0
    lost_texts: int = 0

    def add(self, rows: Rows, tokens: TokenCounts) -> None:
        self.labels.update(rows.label_ids.tolist())
        self.lengths += tokens.lengths
        self.ordinary_tokens += tokens.num_ordinary
        self.unknown_tokens += tokens.num_unknown
        self.lost_texts += tokens.num_lost_texts
        for text in rows.texts:
            self.seen.add(hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest())
            if not text.strip():
                self.empty += 1
            if "\ufffd" in text:
                self.replaced += 1
            if "\0" in text:
                self.nul += 1

    @property
    def repeated(self) -> int:
        return len(self.lengths) - len(self.seen)

    @property
    def unlabelled(self) -> int:
        return self.labels[MISSING_ID] + self.labels[UNKNOWN_ID]

    @property
    def rows_by_label(self) -> list[int]:
        return [self.labels[number] for number in range(self.num_labels)]

    @property
    def unknown_share(self) -> float:
        if not self.ordinary_tokens:
            return 0.0
        return self.unknown_tokens / self.ordinary_tokens

    def longer_than(self, max_length: int) -> int:
        return sum(length > max_length for length in self.lengths)


def validate_dataset(
    path: Path, mapping: LabelMapping, count: Callable[[list[str]], TokenCounts], max_length: int
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read the complete data set once.

    Lone surrogates are not looked for: no UTF-8 file has one, and step 01 records those that it
    replaced.

    Args:
        count: counts the tokens of some texts.
        max_length: tokens at which texts will be truncated.

    Returns:
        The findings by name, and warnings about what does not prevent a measurement but may mislead
        its reader.

    Raises:
        DataError: missing, not UTF-8, a missing column, no rows, only empty texts, or an id without
            a label.
    """
    totals = _Totals(num_labels=len(mapping.names))
    for rows in iter_rows(path, BLOCK_ROWS):
        _refuse_ids_without_label(rows, mapping, path)
        totals.add(rows, count(rows.texts))
    if not totals.lengths:
        raise DataError("The data set has no rows.", where=path, fix=FIX)
    if totals.empty == len(totals.lengths):
        raise DataError("Every text of the data set is empty.", where=path, fix=FIX)
    return _findings(totals, mapping, max_length), _warnings(totals, mapping, max_length)


def _refuse_ids_without_label(rows: Rows, mapping: LabelMapping, path: Path) -> None:
    for row, number in enumerate(rows.label_ids.tolist(), start=rows.start):
        if not UNKNOWN_ID <= number < len(mapping.names):
            what = (
                f"Row {row} has the label id {number}; the label mappings end at "
                f"{len(mapping.names) - 1}."
            )
            raise DataError(what, where=path, fix=FIX)


def _findings(totals: _Totals, mapping: LabelMapping, max_length: int) -> dict[str, str]:
    num_rows = len(totals.lengths)
    by_label = totals.rows_by_label
    occurring = sum(rows > 0 for rows in by_label)
    largest = by_label.index(max(by_label))
    smallest = by_label.index(min(by_label))
    quantiles = np.quantile(totals.lengths, QUANTILES, method="higher")
    tokens = []
    for share, length in zip(QUANTILES, quantiles, strict=True):
        tokens.append(f"p{share * 100:.0f} {length}")
    truncated = totals.longer_than(max_length)
    return {
        "Rows": f"{num_rows:,}",
        "Empty texts": f"{totals.empty:,}",
        "Duplicate texts": f"{totals.repeated:,}",
        "Labels that occur": f"{occurring} of {len(by_label)}; rows without a label: "
        f"{totals.unlabelled:,}",
        "Largest label": f"{mapping.names[largest]} ({by_label[largest]:,}); "
        f"smallest: {mapping.names[smallest]} ({by_label[smallest]:,})",
        "Encoding": f"{totals.replaced:,} texts with U+FFFD, {totals.nul:,} with NUL",
        "Tokens a text": ", ".join(tokens),
        "Unknown tokens": f"{totals.unknown_share:.1%} of {totals.ordinary_tokens:,}; "
        f"texts of nothing else: {totals.lost_texts:,} ({totals.lost_texts / num_rows:.1%})",
        f"Truncated at {max_length} tokens": f"{truncated:,} rows ({truncated / num_rows:.1%})",
    }


def _warnings(totals: _Totals, mapping: LabelMapping, max_length: int) -> tuple[str, ...]:
    return (
        *with_code(WarningCode.DATA, _data_warnings(totals)),
        *with_code(WarningCode.LABELS, _label_warnings(totals, mapping)),
        *with_code(WarningCode.TEXTS, _text_warnings(totals, max_length)),
    )


def _data_warnings(totals: _Totals) -> list[str]:
    warnings = []
    if totals.empty:
        warnings.append(f"{totals.empty:,} texts are empty")
    if totals.repeated:
        warnings.append(f"{totals.repeated:,} texts repeat an earlier one")
    if totals.replaced:
        warnings.append(
            f"{totals.replaced:,} texts contain U+FFFD: they were once decoded with the wrong "
            "encoding"
        )
    if totals.nul:
        warnings.append(f"{totals.nul:,} texts contain NUL characters")
    return warnings


def _text_warnings(totals: _Totals, max_length: int) -> list[str]:
    """What shows that the tokenizer or ``max_length`` does not suit the texts."""
    warnings = []
    if totals.unknown_share >= MANY_UNKNOWN_TOKENS:
        warnings.append(
            f"{totals.unknown_share:.1%} of the tokens are unknown to the tokenizer: check that it "
            "is the model's own"
        )
    if totals.lost_texts:
        warnings.append(
            f"{totals.lost_texts:,} texts become nothing but special and unknown tokens"
        )
    truncated = totals.longer_than(max_length)
    if truncated:
        warnings.append(f"max_length {max_length} truncates {truncated:,} rows")
    return warnings


def _label_warnings(totals: _Totals, mapping: LabelMapping) -> list[str]:
    if totals.unlabelled == len(totals.lengths):
        return ["no row has a label: accuracy and F1 will not be measured"]
    warnings = []
    if totals.unlabelled:
        warnings.append(
            f"{totals.unlabelled:,} rows have no label that the model knows and are left out of "
            "accuracy"
        )
    by_label = dict(zip(mapping.names, totals.rows_by_label, strict=True))
    unused = [name for name, rows in by_label.items() if not rows]
    if unused:
        warnings.append(f"labels without a row: {', '.join(unused)}")
    occurring = [rows for rows in by_label.values() if rows]
    if occurring and max(occurring) > IMBALANCE * min(occurring):
        warnings.append(
            f"the largest label has over {IMBALANCE} times the rows of the smallest: read F1 "
            "(macro) beside accuracy"
        )
    return warnings
