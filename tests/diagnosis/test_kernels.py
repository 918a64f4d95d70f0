"""Kernels, gaps and their causes, on a hand-made CUDA trace."""

from __future__ import annotations

import pytest

from tests.diagnosis.builders import ADD, CUDA_TRACE, GEMM, SOFTMAX, launch_and_kernel, trace_event
from utils.diagnosis import kernels


def test_busy_and_idle_by_cause() -> None:
    summary = kernels.summarize_kernels(CUDA_TRACE)
    assert summary is not None
    assert (summary.span_ms, summary.busy_ms, summary.idle_ms) == pytest.approx(
        (1.210, 0.470, 0.740)
    )
    assert summary.idle_by_cause_ms == pytest.approx(
        {"host_wait": 0.050, "synchronisation": 0.030, "between_steps": 0.600, "other": 0.060}
    )
    assert sum(summary.idle_by_cause_ms.values()) == pytest.approx(summary.idle_ms)
    assert (summary.num_steps, summary.num_kernels, summary.num_launches) == (2, 9, 5), (
        "a graph is one launch, a copy is none"
    )
    assert summary.launches_per_s == pytest.approx(5 / 1210e-6)
    assert summary.launch_ms == pytest.approx((4 * 5 + 10) / 1e3)
    assert summary.kernel_ms == pytest.approx(0.480)
    assert summary.median_gap_us == pytest.approx(35)  # 10, 10, 30, 40, 50, 600
    assert sum(summary.by_category_ms.values()) == pytest.approx(summary.kernel_ms)
    assert summary.by_category_ms["matrix product"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "copy_ends", "cause"),
    [
        (
            "cudaMemcpyAsync",
            300,
            "synchronisation",
        ),  # to pageable memory: the call returns at 300, when the copy has ended
        ("cudaMemcpyAsync", 301.5, "synchronisation"),  # the two clocks differ a little
        (
            "cudaMemcpyAsync",
            330,
            "host_wait",
        ),  # pinned, or on the device: the call returned long before
        ("cudaMemcpy", 300, "synchronisation"),
        ("cuMemcpyDtoHAsync_v2", 330, "host_wait"),
        ("cudaStreamSynchronize", 290, "synchronisation"),
        ("cudaMemcpyAsync", None, "host_wait"),  # its copy is not in the trace
    ],
)
def test_a_copy_waits_only_where_it_is_over_when_its_call_returns(
    call: str, copy_ends: float | None, cause: str
) -> None:
    copy = (
        []
        if copy_ends is None
        else [trace_event("gpu_memcpy", "Memcpy", 200, copy_ends - 200, correlation=2)]
    )
    events = [
        *launch_and_kernel(1, 90, GEMM, 200, 90),
        trace_event("cuda_runtime", call, 150, 150, correlation=2),
        *copy,
        *launch_and_kernel(3, 410, ADD, 420, 10),
    ]
    summary = kernels.summarize_kernels(events)
    assert summary is not None
    assert summary.idle_by_cause_ms == dict.fromkeys(kernels.IDLE_CAUSES, 0) | {
        cause: pytest.approx((420 - (copy_ends or 290)) / 1e3)
    }


def test_table() -> None:
    rows = kernels.build_kernel_table(CUDA_TRACE)
    assert list(rows) == ["kernel", "category", "calls", "time_ms", "mean_us", "share_pct"]
    assert rows.iloc[0].to_dict() == {
        "kernel": GEMM,
        "category": "matrix product",
        "calls": 2,
        "time_ms": 0.2,
        "mean_us": 100,
        "share_pct": pytest.approx(100 * 200 / 480),
    }
    assert rows["share_pct"].sum() == pytest.approx(100) and rows["calls"].sum() == 9


def test_nothing_on_the_device() -> None:
    assert kernels.summarize_kernels([]) is None
    assert kernels.summarize_kernels([trace_event("cpu_op", "aten::mm", 0, 1)]) is None
    assert kernels.build_kernel_table([]).empty
    alone = kernels.summarize_kernels([trace_event("kernel", ADD, 0, 0, correlation=1)])
    assert alone is not None and alone.median_gap_us is alone.launches_per_s is None


def test_merged_length() -> None:
    assert kernels.merged_length([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert kernels.merged_length([]) == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ampere_sgemm_128x64_tn", "matrix product"),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNT", "matrix product"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x128>", "matrix product"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float>", "matrix product"),
        ("triton_tem_fused_mm_3", "matrix product"),
        ("void gemv2T_kernel_val<int, int, float>", "matrix product"),
        (
            "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4, "
            "cutlass::bfloat16_t>>",
            "attention",
        ),
        (
            "fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel::Params)",
            "attention",
        ),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3", "attention"),
        ("triton_tem_fused_flex_attention_0", "attention"),
        (
            "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float, "
            "true>",
            "normalisation and element-wise",
        ),
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0", "normalisation and element-wise"),
        ("triton_poi_fused_addmm_silu_2", "normalisation and element-wise"),
        (ADD, "normalisation and element-wise"),
        ("triton_per_fused_argmax_1", "reduction"),
        (SOFTMAX, "reduction"),
        (
            "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, "
            "at::native::MeanOps<float, float>>>",
            "reduction",
        ),
        (
            "void at::native::unrolled_elementwise_kernel<"
            "at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)>",
            "memory copy",
        ),
        (
            "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 3, "
            "64, 64>",
            "memory copy",
        ),
        ("void at::native::vectorized_gather_kernel<16, long>", "memory copy"),
        ("triu_tril_kernel", "other"),
    ],
)
def test_categories(name: str, kind: str) -> None:
    assert kernels.kernel_category(name) == kind


def test_idle_time_is_that_of_holistic_trace_analysis() -> None:
    """Compared with what version 0.5.0 computes of this trace.

    ``TraceAnalysis(trace_dir=..., include_last_profiler_step=True)``, then
    ``get_temporal_breakdown`` and ``get_idle_time_breakdown``. It wants JupyterLab, so it is not
    installed here.
    """
    idle_us = 700.0
    kernel_and_idle_us = 1160.0
    # One cause there, three here.
    host_wait_us = 680.0
    # It leaves out what has no launch.
    linked = [event for event in CUDA_TRACE if event["args"].get("correlation") != 99]
    summary = kernels.summarize_kernels(linked)
    assert summary is not None
    assert summary.idle_ms * 1e3 == pytest.approx(idle_us)
    assert summary.busy_ms * 1e3 == pytest.approx(kernel_and_idle_us - idle_us)
    by_cause = summary.idle_by_cause_ms
    waited_ms = by_cause["host_wait"] + by_cause["synchronisation"] + by_cause["between_steps"]
    assert waited_ms * 1e3 == pytest.approx(host_wait_us)
