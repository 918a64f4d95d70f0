"""Made-up evidence, a hand-made CUDA trace, and small models of other architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from utils.config_loader import Config
from utils.diagnosis import kernels
from utils.diagnosis.bottleneck import classify_bottleneck
from utils.diagnosis.diagnose import describe_batch_size
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.saturation import find_saturation
from utils.schema.ceilings import Ceilings, CopyRate
from utils.schema.diagnosis import DIAGNOSIS_VERSION, Diagnosis, Suggestion, TimedForward

STORED_METRICS = (
    Path(__file__).parents[1] / "schema" / "versions" / "baseline_metrics_2_96e5ddb.json"
)
GEMM, SOFTMAX = (
    "sm90_xmma_gemm_f32f32_tf32f32_f32",
    "void (anonymous namespace)::softmax_warp_forward<float, 8>",
)
ADD = "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>"


def trace_event(cat: str, name: str, ts: float, dur: float, **args: Any) -> dict[str, Any]:
    device = cat in kernels.ON_DEVICE
    return {
        "ph": "X",
        "cat": cat,
        "name": name,
        "pid": 0 if device else 100,
        "tid": 7 if device else 100,
        "ts": ts,
        "dur": dur,
        "args": args | ({"device": 0, "stream": 7} if device else {}),
    }


def launch_and_kernel(
    number: int, launch_ts: float, kernel: str, ts: float, dur: float, cat: str = "kernel"
) -> list[dict[str, Any]]:
    """A launch of 5 us and what it started."""
    call = "cudaLaunchKernel" if cat == "kernel" else "cudaMemcpyAsync"
    return [
        trace_event("cuda_runtime", call, launch_ts, 5, correlation=number),
        trace_event(cat, kernel, ts, dur, correlation=number),
    ]


CUDA_TRACE = [
    trace_event("user_annotation", "ProfilerStep#2", 0, 1000),
    trace_event("gpu_user_annotation", "ProfilerStep#2", 100, 800),  # a mirrored range is no work
    *launch_and_kernel(1, 90, "Memcpy HtoD (Pageable -> Device)", 100, 50, "gpu_memcpy"),
    *launch_and_kernel(
        2, 160, GEMM, 200, 100
    ),  # begins 50 us after the copy ended, and was launched after that: host wait
    *launch_and_kernel(3, 170, ADD, 310, 90),  # launched long before: other, 10 us
    *launch_and_kernel(4, 180, SOFTMAX, 390, 60),  # runs beside the one before for 10 us
    trace_event(
        "cuda_runtime", "cudaStreamSynchronize", 190, 270, correlation=5
    ),  # the host waits until 460
    *launch_and_kernel(
        6, 465, ADD, 480, 20
    ),  # nothing could be launched before: synchronisation, 30 us
    *launch_and_kernel(7, 466, "Memcpy DtoH (Device -> Pageable)", 500, 10, "gpu_memcpy"),
    trace_event("user_annotation", "ProfilerStep#3", 1000, 1000),
    trace_event("cuda_runtime", "cudaGraphLaunch", 1090, 10, correlation=8),
    trace_event("kernel", GEMM, 1110, 100, correlation=8),  # 600 us after the step before
    trace_event(
        "kernel", ADD, 1220, 40, correlation=8
    ),  # the graph was launched in time: other, 10 us
    trace_event(
        "kernel", "void fill<float>", 1300, 10, correlation=99
    ),  # its launch is not in the trace: other, 40 us
    trace_event("cuda_runtime", "cudaFuncGetAttributes", 1400, 500, correlation=9),
    trace_event("cpu_op", "aten::mm", 80, 100),
    {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "ts": 0, "args": {"name": "python"}},
]


def make_evidence(**changes: Any) -> Evidence:
    settings: dict[str, Any] = {
        "device": "cpu",
        "batch_size": 4,
        "tokenize_ms": 1.0,
        "host_to_device_ms": 0.0,
        "forward_ms": 10.0,
        "device_to_host_ms": 0.0,
        "matmul_limited_ms": 2.0,
        "copy_limited_ms": 2.0,
        "op_calls": 100,
        "dispatch_us": 1.0,
        "flops": 1.0,
        "bytes_moved": 1.0,
    }
    return Evidence(**{**settings, **changes})


ENCODERS: dict[str, Any] = {
    "bert": (
        BertForSequenceClassification,
        BertConfig(
            vocab_size=320,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
        ),
    ),
    "distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig(vocab_size=320, dim=32, n_layers=3, n_heads=4, hidden_dim=64),
    ),
    "modernbert": (
        ModernBertForSequenceClassification,
        ModernBertConfig(
            vocab_size=320,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            pad_token_id=0,
        ),
    ),
}


def sweep_row(batch_size: int, **changes: Any) -> dict[str, Any]:
    """A row of ``batch_size_profiling``, measured on a machine that does not matter."""
    template = json.loads(STORED_METRICS.read_text())["batch_size_profiling"][0]
    return {**template, "batch_size": batch_size, **changes}


def write_metrics(config: Config, /, *rows: dict[str, Any], optimal: int | None) -> None:
    """A sweep of the present model: ``baseline_metrics.json`` with these rows.

    Args:
        optimal: the best batch size.
    """
    payload = json.loads(STORED_METRICS.read_text())
    payload["config"] = config.to_dict()
    payload["batch_size_profiling"] = rows
    payload["optimal_batch_size"]["batch_size"] = optimal
    if optimal is None:
        payload["optimal_batch_size"] = None
    config.files.metrics.parent.mkdir(parents=True, exist_ok=True)
    config.files.metrics.write_text(json.dumps(payload))


def make_ceilings(**changes: Any) -> Ceilings:
    """Ceilings of a machine that does not exist."""
    settings: dict[str, Any] = {
        "dtype": "float32",
        "matmul_flops_per_s": 1e11,
        "matmul_size": 512,
        "matmul_spread_pct": 1.0,
        "copy_bytes_per_s": 1e10,
        "copy_rates": (CopyRate(num_bytes=1024, bytes_per_s=1e10),),
        "copy_spread_pct": 1.0,
        "dispatch_s": 1e-6,
        "method": "made up",
    }
    return Ceilings(**{**settings, **changes})


def timed_forward(num_rows: int, length: int, forward_ms: float) -> TimedForward:
    return TimedForward(num_rows=num_rows, length=length, forward_ms=forward_ms)


def make_diagnosis(suggestions: tuple[Suggestion, ...]) -> Diagnosis:
    """Of batches of 4; only its suggestions mean something."""
    evidence = make_evidence()
    bottleneck = classify_bottleneck(evidence)
    return Diagnosis(
        schema_version=DIAGNOSIS_VERSION,
        device="cpu",
        dtype="float32",
        matmul_precision="highest",
        ceilings=make_ceilings(),
        detail_batch_size=4,
        tracing_overhead_ratio=1.2,
        batch_sizes=(describe_batch_size(bottleneck, evidence),),
        saturation=find_saturation([], "the sweep", {4: bottleneck}),
        suggestions=suggestions[:3],
        further_suggestions=suggestions[3:],
        main_bottleneck=bottleneck.sentence,
    )
