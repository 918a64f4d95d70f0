"""The benchmark's own arithmetic, and that everyone in it gives the same labels."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import evaluation_peers
from benchmarks.common import MISS, NOT_HERE, PASS, REPORTED, Row, read_rows
from benchmarks.peers import contestants, limit, time_spent, verdicts
from benchmarks.peers.contestants import COMPILED, EVALUATOR, PEERS, PIPELINE, PLAIN, Timings
from tests import support
from utils.model.costs import count_op_costs, operator_category
from utils.model_utils import load_model


@pytest.fixture(scope="module")
def evaluator(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> contestants.Evaluator:
    config = support.small_config(tmp_path_factory.mktemp("peers"), tiny_model)
    return contestants.Evaluator(load_model(config), config)


@pytest.mark.skipif(
    torch.__version__ < "2.7",
    reason="torch 2.6 computes attention without a mask by plain products",
)
def test_the_limits_flops_are_those_of_the_projects_counter(
    evaluator: contestants.Evaluator,
) -> None:
    model, lengths = evaluator.loaded.model, np.full(4, 32)
    ids = torch.ones(4, 32, dtype=torch.int64)
    padded = torch.ones_like(ids).index_fill_(1, torch.tensor([31]), 0)
    # Without a mask attention computes no more than the real tokens need.
    for full_square, mask in ((False, None), (True, padded)):
        counted = count_op_costs(
            lambda mask=mask: model(input_ids=ids, attention_mask=mask, use_cache=False)
        )  # type: ignore[misc]
        products = sum(
            cost.flops or 0
            for cost in counted
            if operator_category(cost.name) in ("matrix product", "attention")
        )
        flops = limit.real_flops(model, lengths, full_square=full_square)
        assert flops == pytest.approx(products, rel=0.005)
    causal = limit.real_flops(model, lengths)
    assert causal < 0.99 * limit.real_flops(model, lengths, full_square=True)


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.check: row for row in rows}


def test_everyone_gives_the_same_labels(evaluator: contestants.Evaluator, tmp_path: Path) -> None:
    texts = list(support.TEXTS)
    prepared = contestants.prepare_contestants(evaluator, tmp_path, texts)
    assert {EVALUATOR, PLAIN, PIPELINE} <= set(prepared.running)
    timings = contestants.time_rounds(prepared.running, texts, 2)
    for times in timings.seconds.values():
        assert len(times) == 2
    for labels in timings.labels.values():
        assert (labels == timings.labels[PLAIN]).all()
    rows = verdicts.peer_rows(timings, prepared.absent, PEERS, dtype="float32", is_cuda=False)
    assert by_name(rows)[f"labels as {PLAIN}"].status == PASS


def test_only_the_peers_that_are_asked_for_run(
    evaluator: contestants.Evaluator, tmp_path: Path
) -> None:
    prepared = contestants.prepare_contestants(evaluator, tmp_path, list(support.TEXTS), [PLAIN])
    assert set(prepared.running) == {EVALUATOR, PLAIN}


def test_a_speedup_is_over_rounds_and_has_its_interval() -> None:
    assert verdicts.speedup([10.0, 60.0, 12.0], [2.0, 2.0, 2.0]) == (6.0, (5.0, 30.0))
    assert verdicts.speedup([10.0], [2.0]) == (5.0, None)


def test_compiled_is_compared_with_plain(
    evaluator: contestants.Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    texts = list(support.TEXTS)
    prepared = contestants.prepare_contestants(evaluator, tmp_path, texts, [COMPILED])
    assert not prepared.absent
    assert prepared.running[COMPILED].worker.compile_s > 0  # type: ignore[attr-defined]


def test_the_share_of_the_limit_has_a_bar_on_cuda_alone() -> None:
    assert verdicts.limit_row(0.3, dtype="bfloat16", is_cuda=True).status == MISS
    assert verdicts.limit_row(0.32, dtype="bfloat16", is_cuda=True).status == PASS
    assert verdicts.limit_row(0.3, dtype="float32", is_cuda=False).status == REPORTED


def test_compilation_has_a_share_of_the_limit_of_its_own() -> None:
    labels = {EVALUATOR: np.array([1]), COMPILED: np.array([1])}
    timings = Timings(seconds={EVALUATOR: [2.0, 2.0], COMPILED: [1.0, 1.0]}, labels=labels)
    rows = by_name(verdicts.compiled_rows(timings, {}, 0.6, dtype="bfloat16", is_cuda=True))
    assert rows["share of the limit, compiled"].measured == "60.0%"
    assert rows[f"speed over {COMPILED}"].measured == "0.50 times (50%: 0.50 to 0.50)"
    absent = Timings(seconds={EVALUATOR: [2.0, 2.0]}, labels=labels)
    rows = by_name(
        verdicts.compiled_rows(absent, {COMPILED: "no C++"}, 0.6, dtype="bfloat16", is_cuda=True)
    )
    assert [row.status for row in rows.values()] == [MISS]


@pytest.mark.parametrize(("name", "status"), [(COMPILED, MISS), (PLAIN, REPORTED)])
def test_only_the_projects_own_failure_is_a_miss(name: str, status: str) -> None:
    timings = Timings(seconds={EVALUATOR: [1.0]})
    absent = {name: "it broke"}
    [row] = verdicts.peer_rows(timings, absent, [name], dtype="bfloat16", is_cuda=True)
    assert (row.status, row.measured) == (status, "not run: it broke")


def test_tf32_is_compared_with_float32_and_left_again(evaluator: contestants.Evaluator) -> None:
    texts = list(support.TEXTS)
    before = torch.get_float32_matmul_precision()
    rows = verdicts.tf32_rows(evaluator, texts, evaluator(texts), 1e9, 1)
    lines = {row.check: row.measured for row in rows}
    assert lines["TF32: labels as float32"] == "100.000%"
    assert set(lines) == {"TF32: rows/s", "TF32: share of its ceiling", "TF32: labels as float32"}
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_the_shares_of_the_profile_add_up(evaluator: contestants.Evaluator) -> None:
    evaluator.limit = 256
    shares = time_spent.phase_shares(evaluator, list(support.TEXTS))
    assert sum(shares.values()) == pytest.approx(100)
    assert shares["forward"] > 0 and shares["write"] > 0
    kinds = time_spent.operator_shares(evaluator, list(support.TEXTS))
    assert sum(kinds.values()) == pytest.approx(100)


def test_the_device_is_busy_while_any_kernel_runs() -> None:
    # Two overlap, then a gap of 4 us of 20.
    spans = [(0.0, 8.0), (4.0, 10.0), (14.0, 20.0)]
    assert time_spent.busy_fraction(spans) == pytest.approx(0.8)
    assert time_spent.busy_fraction([]) is None
    assert evaluation_peers.busy_row(None).status == NOT_HERE
    assert evaluation_peers.busy_row(0.8).status == MISS


def test_devices_and_precisions_reach_the_config(tmp_path: Path) -> None:
    words = [
        "--device",
        "cuda",
        "--dtype",
        "bfloat16",
        "--architecture",
        "configs/architectures/qwen2.5-0.5b.json",
    ]
    args = evaluation_peers.make_parser().parse_args(words)
    assert tuple(args.peers) == PEERS
    config = evaluation_peers.read_config(args, args.dtype)
    assert (config.model.device, config.model.dtype, config.model.load_format) == (
        "cuda",
        "bfloat16",
        "dummy",
    )
    assert config.model.tokenizer == "embedded"


def test_rows_are_kept_when_the_last_profile_is_interrupted(
    evaluator: contestants.Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # It would hold for every later test.
    monkeypatch.setattr(logging, "disable", lambda level: None)
    monkeypatch.setattr(
        evaluation_peers, "transformers_logging", SimpleNamespace(set_verbosity_error=lambda: None)
    )
    monkeypatch.setattr(evaluation_peers, "load_model", lambda config: evaluator.loaded)
    monkeypatch.setattr(evaluation_peers, "read_config", lambda args, dtype: evaluator.config)
    monkeypatch.setattr(evaluation_peers, "read_texts", lambda config, count: list(support.TEXTS))
    monkeypatch.setattr(evaluation_peers, "operator_shares", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluation_peers.main(["--quick", "--json", str(tmp_path / "lines.json")])
    names = [row.check for row in read_rows(tmp_path / "lines.json")]
    assert "share of the limit" in names
    assert f"speed over {PIPELINE}" in names
