"""Token ids of a chunk of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.data.cells import replace_surrogates
from utils.evaluation.batching import Indices
from utils.model.encoding import InputFormat
from utils.model.truncation import count_truncated

TokenArray = NDArray[np.int64]
TEXTS_PER_CALL = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenChunk:
    """Token ids of some texts, in file order. One without any gets a padding token; ``num_tokens``
    still says 0.

    Args:
        ids: int64 of shape ``[tokens]`` for each text.
        num_tokens: tokens of each text.
        num_truncated: texts that were truncated.
        others: by name, what the model takes for each token beside its id (``token_type_ids``),
            shaped as ``ids``.
        groups: texts of different groups cannot stand in one batch; None where all can.
        highest_id: the largest token id.
    """

    ids: tuple[TokenArray, ...]
    num_tokens: Indices
    num_truncated: int
    others: Mapping[str, tuple[TokenArray, ...]] = field(default_factory=dict)
    groups: Indices | None = None
    highest_id: int = 0

    @property
    def lengths(self) -> Indices:
        """Tokens that each text takes in a batch: at least one."""
        return np.maximum(self.num_tokens, 1)

    def head(self, count: int) -> TokenChunk:
        """The first texts."""
        return TokenChunk(
            ids=self.ids[:count],
            num_tokens=self.num_tokens[:count],
            num_truncated=self.num_truncated,
            others={name: rows[:count] for name, rows in self.others.items()},
            groups=None if self.groups is None else self.groups[:count],
            highest_id=self.highest_id,
        )


def tokenize(
    tokenizer: Any, texts: Sequence[str], max_length: int, inputs: InputFormat
) -> TokenChunk:
    """Token ids of the texts, truncated at ``max_length``, not padded.

    The tokenizer gets a few hundred texts a call: while a call's results become Python objects, no
    other thread can launch work on a GPU.
    """
    ids: list[TokenArray] = []
    others: dict[str, list[TokenArray]] = {name: [] for name in inputs.other_names}
    num_truncated = 0
    for start in range(0, len(texts), TEXTS_PER_CALL):
        batch = [replace_surrogates(text) for text in texts[start : start + TEXTS_PER_CALL]]
        encoded = _encode(tokenizer, batch, max_length, with_others=bool(others))
        ids += _to_arrays(encoded["input_ids"])
        for name, rows in others.items():
            rows += _to_arrays(encoded[name])
        num_truncated += count_truncated(tokenizer, batch, encoded, max_length)
    return TokenChunk(
        ids=_fill_empty(ids, inputs.pad_token_id),
        num_tokens=np.array([row.size for row in ids], dtype=np.int64),
        num_truncated=num_truncated,
        others={name: _fill_empty(rows, inputs.pad_values[name]) for name, rows in others.items()},
        groups=_make_groups(ids, inputs),
        highest_id=max((int(row.max()) for row in ids if row.size), default=0),
    )


def _encode(tokenizer: Any, texts: list[str], max_length: int, *, with_others: bool) -> Any:
    unwanted = {} if with_others else {"return_token_type_ids": False}
    return tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        **unwanted,
    )


def _to_arrays(rows: Sequence[Sequence[int]]) -> list[TokenArray]:
    return [np.asarray(row, dtype=np.int64) for row in rows]


def _fill_empty(rows: Sequence[TokenArray], pad_value: int) -> tuple[TokenArray, ...]:
    """The rows; one without a token gets a single padding value, because no model runs on no token
    at all.
    """
    padding = np.array([pad_value], dtype=np.int64)
    return tuple(row if row.size else padding for row in rows)


def _make_groups(ids: Sequence[TokenArray], inputs: InputFormat) -> Indices | None:
    """Which texts can stand in one batch: those of equal group numbers; all of them where there are
    none.

    A model that takes no padding needs texts of one length. One that expects the same number of end
    tokens in each text of a batch needs texts with as many.
    """
    if not inputs.allows_padding:
        return np.array([max(row.size, 1) for row in ids], dtype=np.int64)
    if inputs.end_token_id is None:
        return None
    counts = [int((row == inputs.end_token_id).sum()) for row in ids]
    return np.array(counts, dtype=np.int64)
