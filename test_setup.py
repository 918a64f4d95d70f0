#!/usr/bin/env python
"""Level 1 check: imports, versions, CUDA, NVML, folders, config, disk space, write access.

For each failure it says what to do.
"""

# Only the standard library here, because this script has to run where nothing is installed yet.
from __future__ import annotations

import argparse
import importlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent
PYTHON_RANGE = ((3, 10), (3, 14))
"""The first version that is supported, and the first one after it that is not."""
INSTALL = "./setup_environment.sh, then: source .venv/bin/activate"
# Where a distribution's import name is not its own name.
IMPORT_NAMES = {"pyyaml": "yaml", "scikit-learn": "sklearn", "nvidia-ml-py": "pynvml"}
PROJECT_MODULES = ("utils.config_loader", "utils.model_utils", "utils.profiler", "utils.metrics")
# What a broken or half installed library raises when it is imported.
IMPORT_ERRORS = (ImportError, OSError, AttributeError, RuntimeError, TypeError, ValueError)
# The default model (2 GB in float32), the data set twice (hub cache and val_df), predictions and
# traces.
DISK_NEEDED_HUB_BYTES = 5 * 10**9
DISK_NEEDED_LOCAL_BYTES = 10**9
OK, WARNING, FAILED = "ok", "warning", "FAILED"


class Check(NamedTuple):
    """The result of one check: of what, with which state, what was observed, and how to fix it."""

    name: str
    state: str
    finding: str
    fix: str = ""


def check_python() -> Iterator[Check]:
    """Whether this Python is one that the project supports."""
    finding = ".".join(map(str, sys.version_info[:3])) + f" ({sys.executable})"
    if PYTHON_RANGE[0] <= sys.version_info[:2] < PYTHON_RANGE[1]:
        yield Check("Python", OK, finding)
    else:
        yield Check(
            "Python", FAILED, f"{finding}; 3.10 to 3.13 is needed", "PYTHON=python3.12 " + INSTALL
        )


def check_packages(file: Path = ROOT / "setup" / "requirements.txt") -> Iterator[Check]:
    """Whether each requirement is installed, in its range, and can be imported."""
    lines = file.read_text(encoding="utf-8").splitlines()
    stated = [line for line in lines if line and not line.startswith("#")]
    requirements = [line for line in stated if applies_here(line)]
    has_problems = False
    for requirement in requirements:
        problem = _package_problem(requirement)
        if problem is not None:
            has_problems = True
            yield problem
    if not has_problems:
        yield Check(
            "Packages",
            OK,
            f"{len(requirements)} of setup/requirements.txt installed, in range, importable",
        )


def _package_problem(requirement: str) -> Check | None:
    requirement = requirement.partition(";")[0]
    name = re.split(r"[<>=!~\[ ]", requirement, maxsplit=1)[0]
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, FAILED, "not installed", INSTALL)
    if not in_range(version, requirement[len(name) :]):
        return Check(name, FAILED, f"{version} is installed, {requirement} is needed", INSTALL)
    try:
        importlib.import_module(IMPORT_NAMES.get(name, name))
    except IMPORT_ERRORS as error:
        finding = f"{version} is installed but cannot be imported: {type(error).__name__}: {error}"
        return Check(
            name, FAILED, finding, f"pip install --force-reinstall --no-deps {name}=={version}"
        )
    return None


def applies_here(requirement: str) -> bool:
    """Whether a requirement is meant for this Python; ``python_version`` alone is understood."""
    _, _, marker = requirement.partition(";")
    python = ".".join(map(str, sys.version_info[:2]))
    return in_range(python, marker.replace('"', ""))


def in_range(version: str, limits: str) -> bool:
    """Whether a version fulfils limits like ``>=1.2,<3``; only ``>=`` and ``<`` are understood."""
    for operator, bound in re.findall(r"(>=|<)\s*([\w.]+)", limits):
        is_at_least = _version_numbers(version) >= _version_numbers(bound)
        if is_at_least != (operator == ">="):
            return False
    return True


def _version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version without local parts and suffixes; 2.0 and 2 are the same."""
    release = re.split(r"[+a-z]", version, maxsplit=1)[0]
    numbers = [int(number) for number in re.findall(r"\d+", release)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_project() -> Iterator[Check]:
    """Whether the project's own modules can be imported."""
    for name in PROJECT_MODULES:
        try:
            importlib.import_module(name)
        except IMPORT_ERRORS as error:
            fix = f"fix what is named above, or {INSTALL}"
            yield Check(
                "Project",
                FAILED,
                f"{name} cannot be imported: {type(error).__name__}: {error}",
                fix,
            )
            return
    yield Check("Project", OK, ", ".join(PROJECT_MODULES))


def check_cuda(device: str) -> Iterator[Check]:
    """Whether PyTorch can compute on a CUDA device.

    Without one the check fails only if ``device`` asks for one.
    """
    try:
        import torch
    except IMPORT_ERRORS:
        # check_packages has reported it.
        return
    needed = device.startswith("cuda")
    state = WARNING
    if needed:
        state = FAILED
    fix = (
        "on this machine use --set model.device=cpu or configs/demo.yaml; on a GPU machine: "
        + INSTALL
    )
    if torch.version.cuda is not None and torch.cuda.is_available():
        if not needed:
            device = "cuda"
        yield _try_cuda(torch, device, fix)
        return
    finding = f"torch {torch.__version__} is built without CUDA"
    if torch.version.cuda is not None:
        finding = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda} but sees no device"
        )
        fix += "; if nvidia-smi shows a GPU, check its driver and CUDA_VISIBLE_DEVICES"
    if device == "cpu":
        yield Check("CUDA", OK, f"not needed, since model.device is cpu ({finding})")
    else:
        yield Check("CUDA", state, finding, fix)


def _try_cuda(torch: Any, device: str, fix: str) -> Check:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if device.startswith("cuda:") and int(device[5:]) >= len(names):
        listed = ", ".join(names)
        finding = f"model.device is {device}, but there are {len(names)} devices: {listed}"
        return Check("CUDA", FAILED, finding, "--set model.device=cuda:0")
    try:
        # A build without kernels for this device, or a device without memory, fails only here.
        torch.ones(8, device=device).sum().item()
    except RuntimeError as error:
        return Check(
            "CUDA",
            FAILED,
            f"{', '.join(names)}, but computing fails: {str(error).splitlines()[0]}",
            fix,
        )
    return Check(
        "CUDA", OK, f"{', '.join(names)}; torch {torch.__version__}, CUDA {torch.version.cuda}"
    )


def check_nvml() -> Iterator[Check]:
    """Whether utilisation, power and energy can be read; without NVML they are not measured."""
    try:
        import pynvml
    except IMPORT_ERRORS:
        # check_packages has reported it.
        return
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        driver = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        finding = f"not readable ({error}): utilisation, power and energy stay empty"
        yield Check(
            "NVML", WARNING, finding, "nothing without an NVIDIA GPU; with one, look at nvidia-smi"
        )
    else:
        yield Check("NVML", OK, f"{count} devices, driver {driver}")


def check_config(args: argparse.Namespace) -> tuple[Check, Any]:
    """Whether the config loads; the config itself, or None."""
    try:
        from utils.config_loader import load_config
        from utils.core.errors import UserError
    except IMPORT_ERRORS:
        return Check(
            "Config", FAILED, f"{args.config} cannot be checked without the packages above", INSTALL
        ), None
    try:
        config = load_config(args.config, args.overrides)
    except UserError as error:
        finding = error.what
        if error.where:
            finding += f" (in {error.where})"
        return Check("Config", FAILED, finding, error.fix or "see configs/config.yaml"), None
    return Check("Config", OK, args.config), config


def check_folders(config: Any) -> Iterator[Check]:
    """Whether the folders of data and results are there or can be made, and can be written."""
    folders = {
        "output.results_dir": config.files.results_dir,
        "dataset.local_path": config.data_file.parent,
    }
    for setting, folder in folders.items():
        base = existing(folder)
        remark = "writable"
        if base != folder:
            remark = "writable, will be made when needed"
        try:
            with tempfile.TemporaryFile(dir=base):
                pass
        except OSError as error:
            fix = (
                f"make {base} a folder that you can write, or choose another with "
                f"--set {setting}=PATH"
            )
            yield Check("Folder", FAILED, f"{folder} cannot be written: {error.strerror}", fix)
        else:
            yield Check("Folder", OK, f"{folder} ({remark})")


def check_disk(config: Any) -> Iterator[Check]:
    """Whether there is room for downloads and results."""
    needs_hub = False
    for name in (config.model.name, config.dataset.hf_name):
        if name != "embedded" and not Path(name).exists():
            needs_hub = True
    needed_bytes = {
        config.files.results_dir: DISK_NEEDED_LOCAL_BYTES,
        config.data_file.parent: DISK_NEEDED_LOCAL_BYTES,
    }
    if needs_hub:
        from huggingface_hub import constants

        needed_bytes[Path(constants.HF_HUB_CACHE)] = DISK_NEEDED_HUB_BYTES
    for folder, needed in needed_bytes.items():
        free = shutil.disk_usage(existing(folder)).free
        finding = f"{free / 1e9:,.1f} GB free at {folder} ({needed / 1e9:,.0f} GB needed)"
        if free >= needed:
            yield Check("Disk", OK, finding)
            continue
        fix = (
            "free some, or move the cache (HF_HOME) and the results "
            "(--set output.results_dir=PATH) to a larger disk"
        )
        yield Check("Disk", FAILED, finding, fix)


def existing(path: Path) -> Path:
    """The path itself, or its nearest ancestor that is there."""
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def all_checks(args: argparse.Namespace) -> Iterator[Check]:
    """Every check, in an order in which each explains those after it."""
    yield from check_python()
    yield from check_packages()
    yield from check_project()
    verdict, config = check_config(args)
    yield verdict
    yield from check_cuda(config.model.device if config else "auto")
    yield from check_nvml()
    if config:
        yield from check_folders(config)
        yield from check_disk(config)


def _use_pipeline_cache() -> None:
    """Look at the cache that the pipeline will use; before huggingface_hub is imported."""
    try:
        from utils.pipeline.startup import use_persistent_hub_cache
    except IMPORT_ERRORS:
        return
    use_persistent_hub_cache()


def show(check: Check) -> None:
    """One check on the terminal, with what to do below it."""
    print(f"[{check.state:^7}] {check.name}: {check.finding}", flush=True)
    if check.state != OK:
        print(f"          fix: {check.fix}", flush=True)


def make_parser() -> argparse.ArgumentParser:
    """The flags that every script of the project takes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python test_setup.py --config configs/demo.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--config",
        default="configs/config.yaml",
        metavar="PATH",
        help="settings file (default: %(default)s)",
    )
    add(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting",
    )
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    add(
        "--log-level",
        default="WARNING",
        choices=levels,
        type=str.upper,
        help="with ERROR, only what failed is shown",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run all checks and print what they observed.

    Returns:
        0: nothing failed; 2: something has to be fixed.
    """
    args = make_parser().parse_args(argv)
    _use_pipeline_cache()
    failed = 0
    warned = 0
    for check in all_checks(args):
        failed += check.state == FAILED
        warned += check.state == WARNING
        if args.log_level != "ERROR" or check.state == FAILED:
            show(check)
    if failed:
        print(f"\n{failed} of the checks failed; what to do is printed below each.")
        return 2
    warnings = ""
    if warned:
        warnings = f" ({warned} of the checks warn)"
    print(f"\nThe set-up is fine{warnings}. Next: python run_week1.py --config {args.config}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
