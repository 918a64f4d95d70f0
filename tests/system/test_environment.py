"""The machine's record."""

from __future__ import annotations

import json

import pytest

from utils.system.environment import DRIVER_SETTINGS, driver_record, read_environment


class Driver:
    """What pynvml offers for one card; an old driver that knows no ECC."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-1":
            raise self.NVMLError("not found")
        return "handle"

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:  # noqa: N802
        return 700_000

    def nvmlDeviceGetPersistenceMode(self, handle: str) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetEccMode(self, handle: str) -> list[int]:  # noqa: N802
        raise self.NVMLError("not supported")


def test_how_the_gpu_is_set() -> None:
    assert driver_record("GPU-1", Driver()) == {
        "driver": "570.1",
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 2619,
        "power_limit_w": 700.0,
        "persistence_mode": 1,
        "ecc_mode": None,
    }
    assert driver_record("GPU-2", Driver()) == dict.fromkeys(DRIVER_SETTINGS)


def test_the_record_has_what_results_depend_on() -> None:
    environment = read_environment("cpu")
    assert environment.gpu is None
    assert environment.torch.num_threads is not None and environment.torch.num_threads >= 1
    assert environment.libraries["torch"]
    assert environment.cpu.usable_cores is not None and environment.cpu.usable_cores >= 1
    assert json.loads(json.dumps(environment.to_dict()))["cpu"]["name"] == environment.cpu.name


def test_the_record_has_the_allocators_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its name before PyTorch 2.9 and since."""
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "expandable_segments:True")
        assert read_environment("cpu").variables[name] == "expandable_segments:True"


def test_the_record_has_the_tokenizers_threads_as_the_sweep_uses_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    assert read_environment("cpu").variables["TOKENIZERS_PARALLELISM"] == "false"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    assert read_environment("cpu").variables["TOKENIZERS_PARALLELISM"] == "true"
