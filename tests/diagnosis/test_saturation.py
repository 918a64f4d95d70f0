"""Where larger batches stop helping, on numbers."""

from __future__ import annotations

from tests.diagnosis.builders import make_evidence
from utils.diagnosis.bottleneck import classify_bottleneck
from utils.diagnosis.saturation import Throughput, find_saturation
from utils.schema.diagnosis import Saturation


def test_without_throughputs_nothing_is_known_of_larger_batches() -> None:
    assert find_saturation([], "the sweep", {}).batch_size is None


def saturation_of(*rows: tuple[int, float, float], then: str = "compute-bound") -> Saturation:
    verdicts = {
        1: classify_bottleneck(make_evidence(op_calls=9000)),
        64: classify_bottleneck(make_evidence()).model_copy(update={"verdict": then}),
    }
    return find_saturation(
        [Throughput(batch_size=b, samples_per_s=s, padding_fraction=p) for b, s, p in rows],
        "the sweep",
        verdicts,
    )


def test_where_larger_batches_stop_helping() -> None:
    saturation = saturation_of((1, 10, 0.0), (8, 40, 0.0), (64, 41, 0.0))
    assert (saturation.batch_size, saturation.verdict_at_smallest, saturation.limited_by) == (
        8,
        "overhead-bound",
        "compute-bound",
    )
    assert (
        saturation.sentence
        == "From batch size 8 on, larger batches are not faster, because batch size 64 is"
        " compute-bound."
    )
    padded = saturation_of((1, 40, 0.0), (8, 39, 0.4), (64, 30, 0.7))
    assert (padded.batch_size, padded.limited_by) == (1, "padding"), (
        "100 tokens a second against 40: everything but padding pays"
    )
    assert "0% to 70%" in padded.sentence
    assert saturation_of((1, 40, 0.0), (8, 39, 0.1), (64, 30, 0.2)).limited_by == "compute-bound", (
        "no more tokens a second either"
    )
    for then in ("no-dominant-limit", "overhead-bound"):
        unknown = saturation_of((1, 40, 0.0), (64, 30, 0.0), then=then)
        assert unknown.limited_by is None
        assert "is limited neither by arithmetic nor by the memory" in unknown.sentence


def test_larger_batches_may_help_to_the_end() -> None:
    for rows in (((1, 10, 0.0), (64, 20, 0.0)), ((64, 20, 0.0),)):
        saturation = saturation_of(*rows)
        assert (
            saturation.batch_size is None
            and saturation.limited_by is None
            and "up to the largest batch size, 64" in saturation.sentence
        )
