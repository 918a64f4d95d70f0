"""What faster kernels would save: slow layers, slow operators, attention, precision."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping

from utils.core.rounding import three_digits
from utils.diagnosis.evidence import Evidence
from utils.diagnosis.findings import Findings, OperatorGroup, PresentSettings
from utils.diagnosis.forecast import Forecast
from utils.schema.diagnosis import Proposal
from utils.schema.profile import AttentionUse

DEVICE_BOUND_SHARE = 0.9
"""Share of the forward from which on a CUDA device is busy throughout, so that kernels decide."""
SLOW_LAYER = 2.0
MIN_PEERS = 3
"""A module that takes twice as long as in the other layers, three at least in all, is slow."""
SLOW_LAYER_SHARE = 0.05
"""Of the forward that a slow layer has to cost: less may be one interrupt of a few calls."""
COMPILE = "evaluation.compile=true"
FUSIBLE = ("element-wise", "normalisation", "reduction", "copy")
"""Kinds of operators that a compiler joins to kernels which read and write memory once."""
GROUPED_HEADS_ADVICE = (
    "repeat the key and value heads before attention instead of enable_gqa, as step 02's evaluation"
    " does in float32, so that the memory-efficient kernel runs; or float16 or bfloat16, where the"
    " flash kernel takes grouped heads"
)
FUSED_ADVICE = (
    "a kernel that stores no scores; run the model inside torch.nn.attention.sdpa_kernel without"
    " SDPBackend.MATH, and PyTorch says why each of the others refuses these inputs"
)


def max_kernel_saving_ms(evidence: Evidence, forecast: Forecast | None) -> float:
    """Milliseconds of the forward that faster kernels can save at most.

    - The device's busy time is not known, as on the CPU: the forward less the overhead.
    - It is known, and there is a forecast: the forward less the forecast's fixed time, which the
      host takes to start the kernels.
    - It is known without a forecast: the busy time where the device never waits, otherwise 0.
    """
    if evidence.device_busy_ms is None:
        return evidence.forward_ms - evidence.overhead_ms
    if forecast is not None:
        return max(0.0, evidence.forward_ms - forecast.model.fixed_ms)
    if _device_never_waits(evidence):
        return evidence.device_busy_ms
    return 0.0


def _device_never_waits(evidence: Evidence) -> bool:
    """Whether the device is busy throughout the forward; on the CPU the host is the device."""
    if evidence.device_busy_ms is None:
        return True
    return evidence.device_busy_ms >= DEVICE_BOUND_SHARE * evidence.forward_ms


def compile_setting(settings: PresentSettings) -> str | None:
    """None where the model is compiled already."""
    return None if settings.evaluation.compile else COMPILE


def slow_layer_suggestions(findings: Findings) -> Iterator[Proposal]:
    """The module that takes longest beyond what the same module takes in the other layers."""
    evidence = findings.evidence
    excess_ms, own_ms, name = 0.0, 0.0, ""
    for peers in _modules_by_role(findings.module_ms):
        if len(peers) < MIN_PEERS:
            continue
        *others, (slowest_ms, slowest) = sorted(peers)
        others_ms = statistics.median(ms for ms, _ in others)
        more_ms = slowest_ms - others_ms
        if slowest_ms > SLOW_LAYER * others_ms and more_ms > excess_ms:
            excess_ms, own_ms, name = more_ms, slowest_ms, slowest
    if excess_ms < SLOW_LAYER_SHARE * evidence.forward_ms:
        return
    yield Proposal(
        title=f"Slow layer: {name}",
        cause="this module takes longer than the same module of the other layers",
        saving_ms=min(excess_ms, evidence.forward_ms),
        advice=f"look at what {name} does that the same module of the other layers does not",
        # Kernels that end while the device waits for the host anyway shorten nothing.
        prediction="estimate" if _device_never_waits(evidence) else "upper-bound",
        evidence=f"{three_digits(own_ms)} ms, the others {three_digits(own_ms - excess_ms)} ms",
    )


def _modules_by_role(module_ms: Mapping[str, float]) -> list[list[tuple[float, str]]]:
    """Modules that differ in the number of their layer alone: milliseconds and name."""
    by_role: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, own_ms in module_ms.items():
        role, num_replaced = re.subn(r"\.\d+(?=\.|$)", ".*", name, count=1)
        if num_replaced:
            by_role[role].append((own_ms, name))
    return list(by_role.values())


def operator_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """The kind of operators that takes longest beyond what the ceilings allow."""
    if not findings.groups:
        return
    evidence = findings.evidence
    worst = max(findings.groups, key=lambda group: _excess_ms(group, evidence))
    if worst.kind == "attention" and settings.model.attn_implementation == "eager":
        advice = "PyTorch's fused attention (sdpa)"
        setting: str | None = "model.attn_implementation=sdpa"
    elif worst.kind in ("matrix product", "attention"):
        advice = "larger or fuller batches, in which these operators are more efficient"
        setting = None
    elif worst.kind in FUSIBLE and not settings.evaluation.compile:
        # fusion_suggestions says what becomes of these.
        return
    else:
        advice = "fused kernels of your own (the evaluation is compiled already)"
        setting = None
    excess_ms = _excess_ms(worst, evidence)
    saving_ms = min(excess_ms, max_kernel_saving_ms(evidence, findings.forecast))
    yield Proposal(
        title=f"Faster operators: {worst.kind}",
        cause="they take longer than this machine needs at best for their arithmetic and bytes",
        saving_ms=max(0.0, saving_ms),
        advice=advice,
        prediction="upper-bound",
        setting=setting,
        evidence=_excess_evidence(worst, evidence, saving_ms),
        caution=_rare_calls(worst),
    )


def fusion_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """What joining operators would save that each store a result which the next one reads again.

    The time of these operators at the ceilings is no limit here: it includes the stored results.
    What remains after fusing is known once it is tried, so that all their time is the bound.
    """
    fusible = [group for group in findings.groups if group.kind in FUSIBLE]
    if not fusible or settings.evaluation.compile:
        return
    evidence = findings.evidence
    together = OperatorGroup(
        kind=", ".join(sorted(group.kind for group in fusible)),
        measured_ms=sum(group.measured_ms for group in fusible),
        attainable_ms=0.0,
        calls=sum(group.calls for group in fusible),
    )
    saving_ms = min(
        _excess_ms(together, evidence), max_kernel_saving_ms(evidence, findings.forecast)
    )
    yield Proposal(
        title="Store fewer intermediate results",
        cause="each of these operators writes its result to memory, and the next reads it again",
        saving_ms=max(0.0, saving_ms),
        advice="compile the model with torch.compile, which fuses many small operators into few",
        prediction="upper-bound",
        setting=COMPILE,
        evidence=(
            f"{three_digits(together.calls)} calls of {together.kind} operators take"
            f" {three_digits(together.measured_ms)} ms; {_starting_text(together, evidence)}"
            "fused kernels save a part of it, at most all"
        ),
        caution=_rare_calls(together),
    )


def _starting_text(group: OperatorGroup, evidence: Evidence) -> str:
    """The time that is subtracted on the CPU, where starting an operator is a part of its time."""
    if evidence.device != "cpu":
        return ""
    return f"{three_digits(group.calls * evidence.dispatch_us / 1e3)} ms of it start them; "


def _rare_calls(group: OperatorGroup) -> str | None:
    """Why a saving rests on chance; None where the operators run in every batch."""
    if group.calls >= 1:
        return None
    return f"these operators run {group.calls:.2g} times a batch, so that their time may be chance"


def _excess_evidence(group: OperatorGroup, evidence: Evidence, saving_ms: float) -> str:
    """The calculation that the saving comes from."""
    text = (
        f"{three_digits(group.calls)} calls take {three_digits(group.measured_ms)} ms, where"
        f" {three_digits(group.attainable_ms)} ms are possible"
    )
    if evidence.device == "cpu":
        starting_ms = group.calls * evidence.dispatch_us / 1e3
        text += f", and starting them takes {three_digits(starting_ms)} ms"
    if saving_ms < _excess_ms(group, evidence):
        text += (
            f"; faster kernels can save at most {three_digits(saving_ms)} ms of the forward pass"
        )
    return text


def _excess_ms(group: OperatorGroup, evidence: Evidence) -> float:
    """Time beyond the ceilings."""
    excess_ms = group.measured_ms - group.attainable_ms
    if evidence.device == "cpu":
        # An operator's time includes that of starting it, which is a suggestion of its own.
        excess_ms -= group.calls * evidence.dispatch_us / 1e3
    return excess_ms


def attention_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """What a kernel without stored scores would save where PyTorch chose the math kernel."""
    evidence = findings.evidence
    for use in findings.attention:
        if use.kernel != "math" or use.measured_ms is None or use.attainable_ms is None:
            continue
        saving_ms = min(
            use.measured_ms - use.attainable_ms,
            max_kernel_saving_ms(evidence, findings.forecast),
        )
        yield Proposal(
            title="Another attention kernel",
            cause=(
                "PyTorch chose the attention kernel that stores a score for every pair of tokens"
                " and reads the scores several times"
            ),
            saving_ms=max(0.0, saving_ms),
            advice=_attention_advice(use, evidence, settings),
            prediction="upper-bound",
            evidence=(
                f"{use.calls:,.0f} calls take {three_digits(use.measured_ms)} ms, where a kernel "
                f"without stored scores needs {three_digits(use.attainable_ms)} ms at best;"
                f" {use.stored_score_bytes / 1e6:,.1f} MB of scores are stored"
            ),
        )


def _attention_advice(use: AttentionUse, evidence: Evidence, settings: PresentSettings) -> str:
    """Grouped heads in float32 are the known reason on CUDA; any other has to be found."""
    is_float32_on_cuda = evidence.device == "cuda" and settings.model.dtype == "float32"
    if is_float32_on_cuda and use.has_grouped_heads:
        return GROUPED_HEADS_ADVICE
    return FUSED_ADVICE


def precision_suggestions(findings: Findings, settings: PresentSettings) -> Iterator[Proposal]:
    """The matrix products' own time, faster as the largest of them are in another precision."""
    evidence = findings.evidence
    products = [group for group in findings.groups if group.kind == "matrix product"]
    products_ms = sum(group.measured_ms for group in products)
    for setting, speedup in findings.product_speedups.items():
        if speedup <= 1:
            continue
        saving_ms = products_ms * (1 - 1 / speedup)
        bytes_ms = ""
        if "dtype" in setting:
            # The other operators move half the bytes.
            saving_ms += evidence.copy_limited_ms / 2
            bytes_ms = (
                f"; half of the {three_digits(evidence.copy_limited_ms)} ms for moving bytes "
                "is saved"
            )
        yield Proposal(
            title="Lower precision",
            cause=(
                f"matrix products are computed in {settings.model.dtype} (matmul_precision"
                f" {settings.model.matmul_precision})"
            ),
            saving_ms=min(saving_ms, max_kernel_saving_ms(evidence, findings.forecast)),
            advice=f"set {setting.rpartition('.')[2]}, and compare the accuracy",
            # On a CPU the other operators may become slower by more than the products save.
            prediction="estimate" if evidence.device == "cuda" else "upper-bound",
            setting=setting,
            evidence=(
                f"matrix products take {three_digits(products_ms)} ms; the largest of them are"
                f" {speedup:.2f} times as fast with it{bytes_ms}"
            ),
        )
