"""What is known of a batch size, and the records of what is suggested from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from utils.diagnosis.evidence import Evidence
from utils.diagnosis.forecast import Forecast

ESTIMATE = "estimate"  # the prediction follows from measured times of what goes away
UPPER_BOUND = "upper-bound"  # the saving cannot be more


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What trying a suggestion showed, or the reason why that is not known.

    Args:
        ci95: interval of the measured speed-up, low and high.
        label_agreement: share of the texts with the baseline's label.
        prediction_error: predicted over measured speed-up, less 1; None for upper bounds.
    """

    setting: str | None = None
    predicted_speedup: float | None = None
    measured_speedup: float | None = None
    ci95: tuple[float, float] | None = None
    label_agreement: float | None = None
    prediction_error: float | None = None
    num_texts: int | None = None
    num_rounds: int | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """What removing one cause saves, and what to try.

    Args:
        saving_ms: of a batch of ``total_ms``.
        prediction: ``estimate`` or ``upper-bound``, of the saving and of the speed-up.
        setting: ``section.key=VALUE`` that tries it; None where no setting does.
        batch_size: where the suggestion is another one.
    """

    title: str
    cause: str
    saving_ms: float
    total_ms: float
    advice: str
    evidence: str
    prediction: str = ESTIMATE
    setting: str | None = None
    batch_size: int | None = None
    verification: Verification | None = None

    @property
    def saving_pct(self) -> float:
        return 100 * self.saving_ms / self.total_ms

    @property
    def predicted_speedup(self) -> float | None:
        """Of the batch, from texts to logits; None where nothing would remain."""
        remaining_ms = self.total_ms - self.saving_ms
        if remaining_ms <= 0:
            return None
        return self.total_ms / remaining_ms

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "cause": self.cause,
            "saving_ms": self.saving_ms,
            "saving_pct": self.saving_pct,
            "predicted_speedup": self.predicted_speedup,
            "prediction": self.prediction,
            "advice": self.advice,
            "setting": self.setting,
            "evidence": self.evidence,
            "batch_size": self.batch_size,
            "verification": None if self.verification is None else asdict(self.verification),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorGroup:
    """Operators of one kind in one batch: untraced times, times at the ceilings, calls."""

    kind: str
    measured_ms: float
    attainable_ms: float
    calls: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What is known of the batch size that suggestions are made for.

    Args:
        module_ms: own milliseconds by dotted name of the module.
        product_speedups: how many times faster the matrix products are by setting of ``model``.
        forecast: None where the time of other batches cannot be predicted.
        largest_batch: the largest batch size of the sweep.
        too_large: the smallest batch size that ran out of memory; None where none did.
    """

    evidence: Evidence
    groups: Sequence[OperatorGroup] = ()
    module_ms: Mapping[str, float] = field(default_factory=dict)
    product_speedups: Mapping[str, float] = field(default_factory=dict)
    forecast: Forecast | None = None
    largest_batch: int = 0
    too_large: int | None = None
