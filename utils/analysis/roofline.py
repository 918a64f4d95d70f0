"""This device's ceilings, measured: the best matrix product, the best copy, the price of starting an operator.

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

import torch

from utils.core.artifacts import SCHEMA_VERSION, read_json, write_json
from utils.core.environment import environment_record
from utils.core.errors import UserError

MATMUL_SIZES = {"cpu": (256, 512, 1024), "cuda": (1024, 2048, 4096, 8192)}
"""Square products; large enough that the fastest is limited by arithmetic, small enough for seconds in all."""
COPY_BYTES = {"cpu": (1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26), "cuda": (1 << 22, 1 << 25, 1 << 28, 1 << 30)}
"""Sizes of the buffer that is copied: from one that stays in a cache to one that no cache holds."""
REPEATS = 5
REPEAT_AT_LEAST_S = {"cpu": 0.002, "cuda": 0.05}
"""A timed block repeats its work until about this long: the clock's grain and one interrupt matter little, and a GPU has come
to the clock that its power limit allows."""
SLOWEST_PRODUCT_S = 0.25  # no larger product is tried once one takes this long: some precisions have no fast path on a CPU
DISPATCHED_ADDITIONS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """What the device reaches at best.

    Args:
        matmul_flops_per_s: in the model's precision.
        copy_bytes_per_s: read plus written, of the largest buffer.
        copy_points: (bytes read plus written, bytes/s) by size, smallest first: small ones stay in a cache.
        dispatch_s: host seconds to run one operator on one element.
        matmul_spread_pct, copy_spread_pct: the middle repeat less the fastest, in percent of the fastest.
        bfloat16_matmul_flops_per_s, tf32_matmul_flops_per_s: None where that is no precision to change to.
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
    method: str = "best of 5 warm repeats of square matrix products and of copies of several sizes; median of 3 for dispatch"

    def attainable_s(self, flops: int | None, moved: float) -> tuple[float, str]:
        """Seconds at the ceilings, and which of them decides: ``matmul`` or ``copy``."""
        # The best rate for that many bytes or more: what fits in a cache is not held against main memory's rate.
        rate = max(rate for size, rate in self.copy_points if size >= min(moved, self.copy_points[-1][0]))
        computing, copying = (flops or 0) / self.matmul_flops_per_s, moved / rate
        return (computing, "matmul") if computing > copying else (copying, "copy")


def synchronize(device: torch.device) -> None:
    """Wait for the device; nothing to do on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Wall-clock seconds of one call and those that follow it, from an idle device to an idle device."""
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    synchronize(device)
    return time.perf_counter() - begin


def ceilings_of(device: torch.device, dtype: torch.dtype, file: Path) -> Ceilings:
    """Those that ``file`` has of this very machine, device, precision and thread count; else measured, and stored there."""
    record = environment_record(str(device))
    record = {name: record[name] for name in ("platform", "cpu", "gpu", "torch", "variables")} | {
        "torch_version": torch.__version__, "dtype": str(dtype), "device": str(device)}
    try:
        kept = read_json(file, made_by="step 03")
        if kept.get("machine") == record:
            found = kept["ceilings"]
            return Ceilings(**{**found, "copy_points": tuple(map(tuple, found["copy_points"]))})
    except (UserError, KeyError, TypeError):  # not there, damaged, or of another version
        pass
    measured = measure(device, dtype)
    write_json(file, {"schema_version": SCHEMA_VERSION, "ceilings": asdict(measured), "machine": record})
    return measured


def measure(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure the ceilings: some two seconds on a CPU, some more on CUDA."""
    full = dtype == torch.float32
    with torch.inference_mode():
        matmul, size, matmul_spread = _best_matmul(device, dtype)
        points, copy_spread = _copies(device)
        bfloat16 = full and (device.type == "cpu" or torch.cuda.is_bf16_supported())
        tf32 = full and device.type == "cuda" and torch.get_float32_matmul_precision() == "highest"
        with _matmul_precision("high"):
            tf32_rate = _best_matmul(device, dtype)[0] if tf32 else None
        return Ceilings(
            dtype=str(dtype).removeprefix("torch."), matmul_flops_per_s=matmul, matmul_size=size,
            matmul_spread_pct=matmul_spread, copy_bytes_per_s=points[-1][1], copy_points=points,
            copy_spread_pct=copy_spread, dispatch_s=dispatch_s(device), tf32_matmul_flops_per_s=tf32_rate,
            measured_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            bfloat16_matmul_flops_per_s=_best_matmul(device, torch.bfloat16)[0] if bfloat16 else None,
        )


def faster_products(
    products: Sequence[tuple[int, int, int, float]], device: torch.device, given: Ceilings
) -> dict[str, float]:
    """How many times faster these matrix products are under each setting that changes their precision, where there is one.

    Args:
        products: rows, inner size, columns and calls. On a CPU rows are left out of products that take too long.
    """
    def seconds(dtype: torch.dtype) -> float:
        total = 0.0
        for rows, inner, columns, calls in products:
            if device.type == "cpu":
                rows = min(rows, max(1, int(SLOWEST_PRODUCT_S * given.matmul_flops_per_s / (2 * inner * columns))))
            left, right = (torch.randn(*shape, device=device).to(dtype) for shape in ((rows, inner), (columns, inner)))
            total += calls * _best(partial(torch.mm, left, right.t()), device)[0]
        return total

    if not products or given.dtype != "float32":
        return {}
    found, now = {}, seconds(torch.float32)
    if given.bfloat16_matmul_flops_per_s is not None:
        found["model.dtype=bfloat16"] = now / seconds(torch.bfloat16)
    if given.tf32_matmul_flops_per_s is not None:
        with _matmul_precision("high"):
            found["model.matmul_precision=high"] = now / seconds(torch.float32)
    return found


@contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def dispatch_s(device: torch.device) -> float:
    """Seconds per operator when 10,000 additions of one element follow each other: next to no work, all overhead."""
    one = torch.ones(1, device=device)

    def additions() -> None:  # a call of Python's a piece would count with them
        for _ in range(DISPATCHED_ADDITIONS):
            torch.add(one, one)

    with torch.inference_mode():
        return statistics.median(timed(additions, device) for _ in range(3)) / DISPATCHED_ADDITIONS


def _best_matmul(device: torch.device, dtype: torch.dtype) -> tuple[float, int, float]:
    """FLOP/s, size and spread of the fastest square product."""
    results = []
    for size in MATMUL_SIZES[device.type]:
        # Random numbers: a product of constants takes less power, so its clock is higher than any real one's.
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best, spread = _best(partial(torch.mm, left, right, out=torch.empty_like(left)), device)
        results.append((2 * size**3 / best, size, spread))
        if best > SLOWEST_PRODUCT_S:
            break
    return max(results)


def _copies(device: torch.device) -> tuple[tuple[tuple[int, float], ...], float]:
    points, spread = list[tuple[int, float]](), 0.0
    for size in COPY_BYTES[device.type]:
        # Half of the free memory is left to others; the smallest sizes always run.
        if points and device.type == "cuda" and 4 * size > torch.cuda.mem_get_info(device)[0]:
            break
        source = torch.ones(size, device=device, dtype=torch.uint8)
        best, spread = _best(partial(torch.ones_like(source).copy_, source), device)
        points.append((2 * size, 2 * size / best))
    return tuple(points), spread


def _best(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of the fastest repeat and the spread in percent, after a warm-up."""
    timed(run, device)
    once = timed(run, device)
    inner = max(1, int(REPEAT_AT_LEAST_S[device.type] / once))
    times = [timed(run, device, inner) / inner for _ in range(REPEATS)]
    return min(times), (statistics.median(times) / min(times) - 1) * 100
