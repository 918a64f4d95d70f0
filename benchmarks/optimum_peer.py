"""One measurement by optimum-benchmark, in ``.bench-env``, where this project is not installed.

Arguments: launcher (inline or process), model folder, batch size, tokens a row, device. Prints one
line of JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    from optimum_benchmark import (
        Benchmark,
        BenchmarkConfig,
        InferenceConfig,
        InlineConfig,
        ProcessConfig,
        PyTorchConfig,
    )

    launcher, model, size, tokens, device = sys.argv[1:]
    config = BenchmarkConfig(
        name="peer",
        launcher=InlineConfig() if launcher == "inline" else ProcessConfig(),
        scenario=InferenceConfig(
            latency=True,
            memory=False,
            warmup_runs=5,
            iterations=20,
            duration=5,
            input_shapes={"batch_size": int(size), "sequence_length": int(tokens)},
        ),
        backend=PyTorchConfig(model=model, device=device, task="text-classification"),
    )
    latency: Any = Benchmark.launch(config).forward.latency
    print(
        json.dumps(
            {"latency_ms": 1e3 * latency.p50, "mean_ms": 1e3 * latency.mean, "count": latency.count}
        )
    )


if __name__ == "__main__":
    main()
