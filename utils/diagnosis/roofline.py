"""This device's measured ceilings: the best matrix product, the best copy, the cost of an operator.

Source of the model: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils.core.errors import UserError
from utils.core.files import SCHEMA_VERSION, read_json, write_json
from utils.system.environment import environment_record

MATMUL_SIZES = {"cpu": (256, 512, 1024), "cuda": (1024, 2048, 4096, 8192)}
"""Square products: the fastest is limited by arithmetic, and all take seconds together."""
COPY_BYTES = {
    "cpu": (1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26),
    "cuda": (1 << 22, 1 << 25, 1 << 28, 1 << 30),
}
"""Sizes of the buffer that is copied: from one that stays in a cache to one that no cache holds."""
REPEATS = 5
REPEAT_AT_LEAST_S = {"cpu": 0.002, "cuda": 0.05}
"""A timed block repeats its work until about this long: the clock's grain and one interrupt matter
little, and a GPU has come to the clock that its power limit allows."""
SLOWEST_PRODUCT_S = 0.25
"""No larger product is tried once one takes this long: some precisions are slow on a CPU."""
DISPATCHED_ADDITIONS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What the device reaches at best.

    Args:
        matmul_flops_per_s: in the model's precision.
        copy_bytes_per_s: read plus written, of the largest buffer.
        copy_points: (bytes read plus written, bytes/s) by size, rising: small ones stay in a cache.
        dispatch_s: host seconds to run one operator on one element.
        matmul_spread_pct, copy_spread_pct: the middle repeat less the fastest, of the fastest.
        bfloat16_matmul_flops_per_s, tf32_matmul_flops_per_s: None where there is no such change.
    """

    dtype: str
    matmul_flops_per_s: float
    matmul_size: int
    matmul_spread_pct: float
    copy_bytes_per_s: float
    copy_points: tuple[tuple[int, float], ...]
    copy_spread_pct: float
    dispatch_s: float
    bfloat16_matmul_flops_per_s: float | None
    tf32_matmul_flops_per_s: float | None = None
    measured_at: str | None = None
    method: str = (
        "best of 5 warm repeats of square matrix products and of copies of several sizes; median of"
        " 3 for dispatch"
    )

    def attainable_s(self, flops: int | None, moved: float) -> tuple[float, str]:
        """Seconds at the ceilings, and which of them decides: ``matmul`` or ``copy``."""
        # The best rate for that many bytes or more: what fits in a cache is not compared with main
        # memory's rate.
        at_least = min(moved, self.copy_points[-1][0])
        copy_rate = max(rate for size, rate in self.copy_points if size >= at_least)
        computing_s = (flops or 0) / self.matmul_flops_per_s
        copying_s = moved / copy_rate
        if computing_s > copying_s:
            return computing_s, "matmul"
        return copying_s, "copy"


def synchronize(device: torch.device) -> None:
    """Wait for the device; nothing to do on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Wall-clock seconds of all calls, from an idle device to an idle device."""
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize(device)
    return time.perf_counter() - begin


def load_or_measure_ceilings(device: torch.device, dtype: torch.dtype, file: Path) -> Ceilings:
    """Those that ``file`` has of this machine, device, precision and thread count, else measured.

    What is measured is saved there.
    """
    machine = _machine_record(device, dtype)
    saved = _load_ceilings(file, machine)
    if saved is not None:
        return saved
    measured = measure(device, dtype)
    record = {"schema_version": SCHEMA_VERSION, "ceilings": asdict(measured), "machine": machine}
    write_json(file, record)
    return measured


def _machine_record(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What the ceilings depend on."""
    environment = environment_record(str(device))
    record = {name: environment[name] for name in ("platform", "cpu", "gpu", "torch", "variables")}
    record["torch_version"] = torch.__version__
    record["dtype"] = str(dtype)
    record["device"] = str(device)
    return record


def _load_ceilings(file: Path, machine: dict[str, Any]) -> Ceilings | None:
    """None where the file is not there, damaged, of another version or of another machine."""
    try:
        saved = read_json(file, made_by="step 03")
        if saved.get("machine") != machine:
            return None
        fields = dict(saved["ceilings"])
        fields["copy_points"] = tuple(tuple(point) for point in fields["copy_points"])
        return Ceilings(**fields)
    except (UserError, KeyError, TypeError):
        return None


def measure(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure the ceilings: some two seconds on a CPU, some more on CUDA."""
    with torch.inference_mode():
        product = _best_matmul(device, dtype)
        copy_points, copy_spread_pct = _time_copies(device)
        return Ceilings(
            dtype=str(dtype).removeprefix("torch."),
            matmul_flops_per_s=product.flops_per_s,
            matmul_size=product.size,
            matmul_spread_pct=product.spread_pct,
            copy_bytes_per_s=copy_points[-1][1],
            copy_points=copy_points,
            copy_spread_pct=copy_spread_pct,
            dispatch_s=dispatch_s(device),
            tf32_matmul_flops_per_s=_tf32_rate(device, dtype),
            measured_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            bfloat16_matmul_flops_per_s=_bfloat16_rate(device, dtype),
        )


def _tf32_rate(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of float32 products in TF32; None where that is no precision to change to."""
    if dtype != torch.float32 or device.type != "cuda":
        return None
    if torch.get_float32_matmul_precision() != "highest":
        return None
    with _matmul_precision("high"):
        return _best_matmul(device, dtype).flops_per_s


def _bfloat16_rate(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of bfloat16 products; None where that is no precision to change to."""
    if dtype != torch.float32:
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return None
    return _best_matmul(device, torch.bfloat16).flops_per_s


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
        seconds, _ = _min_time(partial(torch.mm, left, right.t()), device)
        total_s += product.calls * seconds
    return total_s


@contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def dispatch_s(device: torch.device) -> float:
    """Seconds per operator when 10,000 additions of one element follow each other: all overhead."""
    one = torch.ones(1, device=device)

    def additions() -> None:  # a Python call for each would count with them
        for _ in range(DISPATCHED_ADDITIONS):
            torch.add(one, one)

    with torch.inference_mode():
        seconds = statistics.median(timed(additions, device) for _ in range(3))
    return seconds / DISPATCHED_ADDITIONS


class _BestProduct(NamedTuple):
    """Ordered by rate."""

    flops_per_s: float
    size: int
    spread_pct: float


def _best_matmul(device: torch.device, dtype: torch.dtype) -> _BestProduct:
    """The fastest square product."""
    results = []
    for size in MATMUL_SIZES[device.type]:
        # Random numbers: a product of constants takes less power, so its clock is higher than any
        # real one's.
        left = torch.randn(size, size, device=device).to(dtype)
        right = torch.randn(size, size, device=device).to(dtype)
        product = partial(torch.mm, left, right, out=torch.empty_like(left))
        seconds, spread_pct = _min_time(product, device)
        results.append(_BestProduct(2 * size**3 / seconds, size, spread_pct))
        if seconds > SLOWEST_PRODUCT_S:
            break
    return max(results)


def _time_copies(device: torch.device) -> tuple[tuple[tuple[int, float], ...], float]:
    """Bytes read plus written and bytes/s of each size; spread of the largest in percent."""
    points: list[tuple[int, float]] = []
    spread_pct = 0.0
    for size in COPY_BYTES[device.type]:
        # Half of the free memory is left to others; the smallest size always runs.
        if points and device.type == "cuda" and 4 * size > torch.cuda.mem_get_info(device)[0]:
            break
        source = torch.ones(size, device=device, dtype=torch.uint8)
        copy = partial(torch.ones_like(source).copy_, source)
        seconds, spread_pct = _min_time(copy, device)
        points.append((2 * size, 2 * size / seconds))
    return tuple(points), spread_pct


def _min_time(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of the fastest repeat and the spread in percent, after a warm-up."""
    timed(run, device)
    once_s = timed(run, device)
    calls = max(1, int(REPEAT_AT_LEAST_S[device.type] / once_s))
    times_s = [timed(run, device, calls) / calls for _ in range(REPEATS)]
    fastest_s = min(times_s)
    return fastest_s, (statistics.median(times_s) / fastest_s - 1) * 100
