"""The benchmark's own arithmetic, and that everyone in it answers alike."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import evaluation_peers as peers
from tests import support
from utils.model.costs import count_op_costs, operator_category
from utils.model_utils import load_model


@pytest.fixture(scope="module")
def ours(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> peers.Ours:
    config = support.small_config(tmp_path_factory.mktemp("peers"), tiny_model)
    return peers.Ours(load_model(config), config)


@pytest.mark.skipif(
    torch.__version__ < "2.7",
    reason="torch 2.6 computes attention without a mask by plain products",
)
def test_the_limits_flops_are_those_of_the_projects_counter(ours: peers.Ours) -> None:
    model, lengths = ours.loaded.model, np.full(4, 32)
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
        flops = peers.real_flops(model, lengths, full_square=full_square)
        assert flops == pytest.approx(products, rel=0.005)
    causal = peers.real_flops(model, lengths)
    assert causal < 0.99 * peers.real_flops(model, lengths, full_square=True)


def test_everyone_gives_the_same_labels(ours: peers.Ours, tmp_path: Path) -> None:
    texts = list(support.TEXTS)
    there, absent = peers.contestants(ours, tmp_path, texts)
    assert {peers.OURS, peers.PLAIN, peers.PIPELINE} <= set(there)
    seconds, labels = peers.rounds(there, texts, 2)
    assert all(len(times) == 2 for times in seconds.values())
    assert all((found == labels[peers.PLAIN]).all() for found in labels.values())
    assert set(peers.contestants(ours, tmp_path, texts, [peers.PLAIN])[0]) == {
        peers.OURS,
        peers.PLAIN,
    }
    lines = peers.checks(seconds, labels, absent, 0.3, dtype="float32", cuda=False)
    assert {line.name: line.passed for line in lines}["share of the limit"] is None
    assert {line.name: line.passed for line in lines}[f"labels as {peers.PLAIN}"] is True


def test_a_ratio_is_over_rounds_and_carries_its_interval() -> None:
    assert peers.ratio([10.0, 60.0, 12.0], [2.0, 2.0, 2.0]) == (6.0, (5.0, 30.0))
    assert peers.ratio([10.0], [2.0]) == (5.0, None)


def test_compiled_is_compared_with_plain(
    ours: peers.Ours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    texts = list(support.TEXTS)
    there, absent = peers.contestants(ours, tmp_path, texts, [peers.COMPILED])
    assert not absent
    assert there[peers.COMPILED].worker.compile_s > 0  # type: ignore[attr-defined]
    seconds = {peers.OURS: [2.0, 2.0], peers.COMPILED: [1.0, 1.0]}
    labels = {name: run(texts) for name, run in there.items()}
    lines = peers.checks(
        seconds, labels, absent, 0.3, dtype="bfloat16", cuda=True, asked=[peers.COMPILED]
    )
    assert {line.name: line.measured for line in lines}["share of the limit, compiled"] == "60.0%"
    assert {line.name: line.passed for line in lines}["share of the limit"] is False
    [failed] = peers.checks(
        {peers.OURS: [1.0]},
        {},
        {peers.COMPILED: "it broke"},
        0.9,
        dtype="bfloat16",
        cuda=True,
        asked=[peers.COMPILED],
    )[:1]
    assert failed.passed is False


def test_tf32_is_compared_with_float32_and_left_again(ours: peers.Ours) -> None:
    texts = list(support.TEXTS)
    before = torch.get_float32_matmul_precision()
    lines = {line.name: line.measured for line in peers.in_tf32(ours, texts, ours(texts), 1e9, 1)}
    assert lines["TF32: labels as float32"] == "100.000%"
    assert set(lines) == {"TF32: rows/s", "TF32: share of its ceiling", "TF32: labels as float32"}
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_the_shares_of_the_profile_add_up(ours: peers.Ours) -> None:
    ours.limit = 256
    shares = peers.phases(ours, list(support.TEXTS))
    assert sum(shares.values()) == pytest.approx(100)
    assert shares["forward"] > 0 and shares["write"] > 0
    kinds, busy = peers.operators(ours, list(support.TEXTS))
    assert sum(kinds.values()) == pytest.approx(100)
    assert busy is None


def test_devices_and_precisions_reach_the_config(tmp_path: Path) -> None:
    words = [
        "--device",
        "cuda",
        "--dtype",
        "bfloat16",
        "--architecture",
        "configs/architectures/qwen2.5-0.5b.json",
    ]
    args = peers.make_parser().parse_args(words)
    assert tuple(args.peers) == peers.PEERS
    config = peers.read_config(args)
    assert (config.model.device, config.model.dtype, config.model.load_format) == (
        "cuda",
        "bfloat16",
        "dummy",
    )
    assert config.model.tokenizer == "embedded"


def test_the_verdict_is_kept_when_the_closing_profile_is_cut(
    ours: peers.Ours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        logging, "disable", lambda level: None
    )  # it would hold for every later test
    monkeypatch.setattr(
        peers, "transformers_logging", SimpleNamespace(set_verbosity_error=lambda: None)
    )
    monkeypatch.setattr(peers, "load_model", lambda config: ours.loaded)
    monkeypatch.setattr(peers, "read_config", lambda args: ours.config)
    monkeypatch.setattr(peers, "read_texts", lambda config, count: list(support.TEXTS))
    monkeypatch.setattr(peers, "operators", cut)
    with pytest.raises(KeyboardInterrupt):
        peers.main(["--quick", "--json", str(tmp_path / "lines.json")])
    names = [line["name"] for line in json.loads((tmp_path / "lines.json").read_text())]
    assert "share of the limit" in names
    assert f"speed over {peers.PIPELINE}" in names
