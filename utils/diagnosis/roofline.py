"""This device's measured ceilings: the best matrix product, the best copy, the cost of an operator.

Source of the model: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from utils.core.errors import UserError
from utils.pipeline import console
from utils.schema.ceilings import Ceilings, CopyRate, Machine, load_ceilings, save_ceilings
from utils.system.device import has_ampere_precisions
from utils.system.environment import read_environment
from utils.system.timing import CallTimes, time_callable, time_calls

MATMUL_SIZES = {"cpu": (256, 512, 1024), "cuda": (1024, 2048, 4096, 8192)}
"""Square products: the fastest is limited by arithmetic, and all take seconds together."""
COPY_BYTES = {
    "cpu": (1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26),
    "cuda": (1 << 25, 1 << 28, 1 << 30),
}
"""Sizes of the buffer that is copied, up to one that no cache holds. On a CPU the first stays in a
cache; on CUDA a copy of some MB takes less time than its launch, so that none is below 32 MiB."""
CEILING_REPEATS = 5
REPEAT_AT_LEAST_S = {"cpu": 0.002, "cuda": 0.05}
"""A timed block repeats its work until about this long: the clock's grain and one interrupt matter
little."""
CEILING_PRODUCT_AT_LEAST_S = {"cpu": 0.002, "cuda": 0.3}
"""The same for the products of the ceilings: a GPU comes to the clock that its power limit allows
only after some tenths of a second."""
SLOWEST_PRODUCT_S = 0.25
"""No larger product is tried once one takes this long: some precisions are slow on a CPU."""
DISPATCHED_ADDITIONS = 10_000


METHOD = (
    f"best of {CEILING_REPEATS} warm repeats of square matrix products and of copies of several "
    "sizes;"
    " median of 3 for dispatch"
)
NO_BFLOAT16 = "this GPU has no bfloat16"
NO_TF32 = "TF32 is a precision of CUDA for float32 products"
TOO_OLD_FOR_TF32 = "this GPU has no TF32"
ALREADY_TF32 = "the matrix products use TF32 or less already"
NOT_FLOAT32 = "the weights are not float32: there is no such change of precision"


class Attainable(NamedTuple):
    """Time at the ceilings, and which of them decides."""

    seconds: float
    ceiling: Literal["matmul", "copy"]


def attainable(ceilings: Ceilings, flops: int | None, bytes_moved: float) -> Attainable:
    """How long work takes at the ceilings. Source: the roofline model, see the module."""
    # The best rate for that many bytes or more: what fits in a cache is not compared with main
    # memory's rate.
    at_least = min(bytes_moved, ceilings.copy_rates[-1].num_bytes)
    large_enough = [rate for rate in ceilings.copy_rates if rate.num_bytes >= at_least]
    copy_rate = max(rate.bytes_per_s for rate in large_enough)
    computing_s = (flops or 0) / ceilings.matmul_flops_per_s
    copying_s = bytes_moved / copy_rate
    if computing_s > copying_s:
        return Attainable(computing_s, "matmul")
    return Attainable(copying_s, "copy")


def load_or_measure_ceilings(device: torch.device, dtype: torch.dtype, file: Path) -> Ceilings:
    """Those that ``file`` has of this machine, device, precision and thread count, else measured.

    What is measured is saved there.
    """
    machine = _describe_machine(device, dtype)
    saved = _load_ceilings(file, machine)
    if saved is not None:
        return saved
    measured = measure_ceilings(device, dtype)
    save_ceilings(file, measured, machine)
    return measured


def _describe_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """What the ceilings depend on."""
    environment = read_environment(str(device))
    return Machine(
        platform=environment.platform,
        cpu=environment.cpu,
        gpu=environment.gpu,
        torch=environment.torch,
        variables=environment.variables,
        torch_version=str(torch.__version__),
        dtype=str(dtype),
        device=str(device),
    )


def _load_ceilings(file: Path, machine: Machine) -> Ceilings | None:
    """None where the file is not there, damaged or of another machine."""
    try:
        saved = load_ceilings(file)
    except UserError:
        return None
    if saved.machine != machine:
        return None
    return saved.ceilings


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure the ceilings: some two seconds on a CPU, some more on CUDA."""
    unavailable = {}
    no_bfloat16 = _why_no_bfloat16(device, dtype)
    no_tf32 = _why_no_tf32(device, dtype)
    with torch.inference_mode():
        product = _best_matmul(device, dtype)
        copies = _time_copies(device)
        bfloat16_rate = None
        if no_bfloat16 is None:
            bfloat16_rate = _best_matmul(device, torch.bfloat16).flops_per_s
        else:
            unavailable["bfloat16_matmul_flops_per_s"] = no_bfloat16
        tf32_rate = None
        if no_tf32 is None:
            with _matmul_precision("high"):
                tf32_rate = _best_matmul(device, dtype).flops_per_s
        else:
            unavailable["tf32_matmul_flops_per_s"] = no_tf32
        return Ceilings(
            dtype=str(dtype).removeprefix("torch."),
            matmul_flops_per_s=product.flops_per_s,
            matmul_size=product.size,
            matmul_spread_pct=product.spread_pct,
            copy_bytes_per_s=copies.rates[-1].bytes_per_s,
            copy_rates=copies.rates,
            copy_spread_pct=copies.spread_pct,
            dispatch_s=measure_dispatch_s(device),
            bfloat16_matmul_flops_per_s=bfloat16_rate,
            tf32_matmul_flops_per_s=tf32_rate,
            measured_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            method=_method(device),
            unavailable=unavailable,
        )


def measure_matmul_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """The ceiling of matrix products alone, in FLOP/s: the other ceilings take much longer."""
    with torch.inference_mode():
        return _best_matmul(device, dtype).flops_per_s


def _method(device: torch.device) -> str:
    """How the ceilings of this device are measured."""
    if device.type != "cuda":
        return METHOD
    smallest_mib = COPY_BYTES["cuda"][0] / (1 << 20)
    return (
        f"{METHOD}; a repeat of products takes {CEILING_PRODUCT_AT_LEAST_S['cuda']:g} s at least, "
        f"for the power limit to act; copies of less than {smallest_mib:g} MiB are left out, "
        "because their launch takes longer"
    )


def _why_no_bfloat16(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why bfloat16 is no precision to change to; None where it is."""
    if dtype != torch.float32:
        return NOT_FLOAT32
    if device.type == "cuda" and not has_ampere_precisions(device):
        return NO_BFLOAT16
    return None


def _why_no_tf32(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why TF32 is no precision to change to; None where it is."""
    if dtype != torch.float32 or device.type != "cuda":
        return NO_TF32
    if not has_ampere_precisions(device):
        return TOO_OLD_FOR_TF32
    if torch.get_float32_matmul_precision() != "highest":
        return ALREADY_TF32
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixProduct:
    """rows x inner times inner x columns, so many calls."""

    rows: int
    inner: int
    columns: int
    calls: float


def product_speedups(
    products: Sequence[MatrixProduct], device: torch.device, ceilings: Ceilings
) -> dict[str, float]:
    """How many times faster these products are under each setting that changes their precision.

    On a CPU rows are left out of products that take too long.
    """
    if not products or ceilings.dtype != "float32":
        return {}
    present_s = _time_products(products, torch.float32, device, ceilings)
    speedups = {}
    if ceilings.bfloat16_matmul_flops_per_s is not None:
        bfloat16_s = _time_products(products, torch.bfloat16, device, ceilings)
        speedups["model.dtype=bfloat16"] = present_s / bfloat16_s
    if ceilings.tf32_matmul_flops_per_s is not None:
        with _matmul_precision("high"):
            tf32_s = _time_products(products, torch.float32, device, ceilings)
        speedups["model.matmul_precision=high"] = present_s / tf32_s
    return speedups


def _time_products(
    products: Sequence[MatrixProduct],
    dtype: torch.dtype,
    device: torch.device,
    ceilings: Ceilings,
) -> float:
    """Seconds of all calls, each product timed alone."""
    total_s = 0.0
    for product in products:
        rows = product.rows
        if device.type == "cpu":
            flops_of_a_row = 2 * product.inner * product.columns
            affordable = int(SLOWEST_PRODUCT_S * ceilings.matmul_flops_per_s / flops_of_a_row)
            rows = min(rows, max(1, affordable))
        left = torch.randn(rows, product.inner, device=device).to(dtype)
        right = torch.randn(product.columns, product.inner, device=device).to(dtype)
        product_of_rows = partial(torch.mm, left, right.t())
        times = _time_repeated(product_of_rows, device, REPEAT_AT_LEAST_S[device.type])
        total_s += product.calls * times.fastest_s
    return total_s


@contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measure_dispatch_s(device: torch.device) -> float:
    """Seconds per operator when 10,000 additions of one element follow each other: all overhead."""
    one = torch.ones(1, device=device)

    # A Python call for each would count with them.
    def additions() -> None:
        for _ in range(DISPATCHED_ADDITIONS):
            torch.add(one, one)

    with torch.inference_mode():
        times = time_callable(additions, device, repeats=3, warmups=0)
    return times.median_s / DISPATCHED_ADDITIONS


class _BestProduct(NamedTuple):
    """Ordered by rate."""

    flops_per_s: float
    size: int
    spread_pct: float


def _best_matmul(device: torch.device, dtype: torch.dtype) -> _BestProduct:
    """The fastest square product."""
    results = []
    sizes = MATMUL_SIZES[device.type]
    for size in console.progress(sizes, what="Timing matrix products", unit="size"):
        # Random numbers: a product of constants takes less power, so its clock is higher than any
        # real one's.
        left = torch.randn(size, size, device=device).to(dtype)
        right = torch.randn(size, size, device=device).to(dtype)
        product = partial(torch.mm, left, right, out=torch.empty_like(left))
        times = _time_repeated(product, device, CEILING_PRODUCT_AT_LEAST_S[device.type])
        rate = 2 * size**3 / times.fastest_s
        results.append(_BestProduct(rate, size, 100 * times.spread))
        if times.fastest_s > SLOWEST_PRODUCT_S:
            break
    return max(results)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copies:
    """Rates by size, rising, and the spread of the largest."""

    rates: tuple[CopyRate, ...]
    spread_pct: float


def _time_copies(device: torch.device) -> _Copies:
    rates: list[CopyRate] = []
    spread = 0.0
    for size in console.progress(COPY_BYTES[device.type], what="Timing copies", unit="size"):
        # Half of the free memory is left to others; the smallest size always runs.
        if rates and device.type == "cuda" and 4 * size > torch.cuda.mem_get_info(device)[0]:
            break
        source = torch.ones(size, device=device, dtype=torch.uint8)
        copy = partial(torch.ones_like(source).copy_, source)
        times = _time_repeated(copy, device, REPEAT_AT_LEAST_S[device.type])
        spread = times.spread
        num_bytes = 2 * size
        rates.append(CopyRate(num_bytes=num_bytes, bytes_per_s=num_bytes / times.fastest_s))
    return _Copies(rates=tuple(rates), spread_pct=100 * spread)


def _time_repeated(run: Callable[[], object], device: torch.device, at_least_s: float) -> CallTimes:
    """Time a call, repeated until a repeat takes about ``at_least_s``."""
    time_calls(run, device)
    once_s = time_calls(run, device)
    calls = max(1, int(at_least_s / once_s))
    return time_callable(run, device, repeats=CEILING_REPEATS, warmups=0, calls=calls)
