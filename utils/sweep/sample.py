"""The texts that the batch-size sweep, the profile and the verification run over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from utils.core.errors import DataError
from utils.data.reader import sample_texts
from utils.model_utils import LoadedModel, texts_of_one_end_token
from utils.schema.warning_codes import WarningCode
from utils.settings import ProfilingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSample:
    """Texts of the data set in file order, any of which can stand in one batch with any other."""

    texts: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def draw_texts(
    loaded: LoadedModel, data_file: Path, settings: ProfilingConfig, size: int
) -> TextSample:
    """Draw ``size`` texts with the configured seed; fewer where the data set has fewer.

    Raises:
        DataError: no data set, or no text that the model can take in a batch.
    """
    drawn = sample_texts(data_file, size, settings.seed)
    usable = texts_of_one_end_token(loaded, drawn, settings.max_length)
    num_left_out = len(drawn) - len(usable)
    if not usable:
        raise DataError(
            "No text of the sample can stand in a batch with another.",
            where=data_file,
            fix="--set dataset.sample_sizes=[N] with a larger N",
        )
    if not num_left_out:
        return TextSample(texts=tuple(usable))
    warning = WarningCode.TEXTS.warn(
        f"{num_left_out} of {len(drawn)} sampled texts hold the model's end token themselves; "
        "they are left out of the batch-size sweep, because the model refuses them in a batch "
        "with others, and are evaluated by themselves"
    )
    return TextSample(texts=tuple(usable), warnings=(warning,))
