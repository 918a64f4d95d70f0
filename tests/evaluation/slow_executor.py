"""A data set of Ray whose executor, a thread, needs seconds to stop, as on a busy machine."""

from __future__ import annotations

import os
import threading
import time

import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from utils.evaluation.cluster import connected_ray

STEP_S = 4.0
"""Ray itself waits 2 s for the executor, and ends the process if it uses Ray after that."""
is_slow = threading.Event()


class SlowStep(ExecutionCallback):  # type: ignore[misc]  # Ray ships no types
    """Each step of the executor uses Ray for ``STEP_S`` once ``is_slow`` is set."""

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        if is_slow.is_set():
            core_worker = ray._private.worker.global_worker.core_worker
            time.sleep(STEP_S)
            core_worker.get_current_node_id()


def stop_early(address: str) -> int:
    """Connect, take one of several blocks and leave. Returns how many rows that block has."""
    os.environ["RAY_DATA_EXECUTION_CALLBACKS"] = f"{__name__}.{SlowStep.__name__}"
    try:
        with connected_ray(address, num_workers=1):
            rows = ray.data.range(9, override_num_blocks=9)
            batches = iter(rows.iter_batches(batch_size=None, prefetch_batches=0))
            first = next(batches)
            executors = [t for t in threading.enumerate() if isinstance(t, StreamingExecutor)]
            is_slow.set()
            # The next step has begun before the data set ends.
            time.sleep(0.5)
            batches.close()
            del batches, rows
        # An executor that still runs ends this process, and with it the result.
        for executor in executors:
            executor.join()
    finally:
        del os.environ["RAY_DATA_EXECUTION_CALLBACKS"]
    return len(first["id"])
