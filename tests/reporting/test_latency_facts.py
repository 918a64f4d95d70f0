"""What the text report says about percentiles and the latency target."""

from __future__ import annotations

from utils.reporting.latency_facts import latency_target_text
from utils.schema.latency import LatencyTarget, LatencyTrial

BELOW = LatencyTrial(
    batch_size=24,
    num_latencies=200,
    latency_ms=48.0,
    latency_ms_ci95_low=47.0,
    latency_ms_ci95_high=49.0,
    throughput_samples_per_sec_mean=500.0,
    throughput_samples_per_sec_ci95_low=490.0,
    throughput_samples_per_sec_ci95_high=510.0,
    is_below=True,
)
ABOVE = LatencyTrial(batch_size=25, num_latencies=200, latency_ms=51.5, is_below=False)


def text_of(**values: object) -> str:
    common: dict[str, object] = {"target_ms": 50.0, "percentile": 95, "sample_size": 100}
    return latency_target_text(
        LatencyTarget.model_validate({**common, "tried": (BELOW, ABOVE), **values})
    )


def test_the_largest_batch_size_stands_with_its_intervals_and_the_edge() -> None:
    assert text_of(largest_below=BELOW, smallest_above=ABOVE) == (
        "p95 below 50 ms: batch size 24, p95 48.0 ms (95% interval 47.0 to 49.0), 500 "
        "samples/s (95% interval 490 to 510). Batch size 25 reaches the target (51.5 ms). Waiting "
        "in a queue is not included: a request may wait for a batch to end first."
    )


def test_an_interval_that_includes_the_target_is_said() -> None:
    unsure = BELOW.model_copy(update={"latency_ms_ci95_high": 52.0})
    assert "another process may exceed it" in text_of(largest_below=unsure, smallest_above=ABOVE)


def test_without_a_batch_size_the_reason_stands() -> None:
    reasons = {"largest_below": "also the smallest batch takes longer"}
    text = text_of(largest_below=None, smallest_above=ABOVE, unavailable=reasons)
    assert "no batch size found (also the smallest batch takes longer)" in text
