"""Every lasting effect on the process: environment variables, signals, log levels, the interpreter.

Entry points call these functions; nothing here happens on import. ``prepare_process`` comes before
the heavy imports, because libraries read their environment variables when they are imported.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from utils.core.errors import Interrupted

WORKSPACE = Path("/workspace")
"""Where GPU clouds mount the volume that outlives a pod."""
IMAGE_CACHE = Path("/runpod-volume")
"""RunPod's images put all caches below this folder: a volume of its serverless workers, but on a
pod a folder of the container, which is lost with it.

Source: ``official-templates/base/Dockerfile`` of github.com/runpod/containers.
"""
USER_CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
"""With one of these the user has chosen the place of the hub's cache."""
EXIT_CODE_OF_SIGINT = 130
CONSOLE_LOGGER = "console"
"""The logger that records what was printed."""
QUIET_LOGGERS = (
    "httpx",
    "httpcore",
    "urllib3",
    "filelock",
    "matplotlib",
    "PIL",
    "fsspec",
    "datasets",
    "asyncio",
)
"""Libraries that report every connection or file: only their warnings are of interest."""
RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
"""Ray sends no usage statistics and draws no progress bars of its own."""
RETRY_S = 0.05
"""After so long an interruption that was ignored is tried again."""
SWITCH_INTERVAL_S = 1e-4
"""How long a Python thread runs before another may; less than the time of a GPU's kernel."""


def prepare_process() -> None:
    """What every entry point needs before it imports the heavy libraries."""
    exit_quietly_on_interrupt()
    use_persistent_hub_cache()
    quiet_libraries()


def exit_quietly_on_interrupt() -> None:
    """End with one line and exit code 130 on Ctrl-C, instead of a traceback.

    For the seconds in which a script imports its libraries: nothing has been measured yet, so
    nothing can be lost. ``cli.run_script`` then calls ``raise_on_signals``.
    """

    def leave(number: int, frame: object) -> None:
        sys.stderr.write("Interrupted before anything was done.\n")
        sys.stderr.flush()
        os._exit(EXIT_CODE_OF_SIGINT)

    signal.signal(signal.SIGINT, leave)


def use_persistent_hub_cache(
    workspace: Path = WORKSPACE, variables: MutableMapping[str, str] = os.environ
) -> Path | None:
    """Put the hub's downloads on a pod's persistent volume, unless the user has chosen a cache.

    Has to come before huggingface_hub or datasets is imported: both read these variables once. The
    login's token stays where it is, off the volume, so ``HF_HOME`` itself does not change.

    Args:
        workspace: the folder where the volume is mounted.
        variables: the environment to change.

    Returns:
        The folder of the caches; None if nothing changed.
    """
    has_user_cache = any(_is_users_choice(variables.get(name)) for name in USER_CACHE_VARIABLES)
    if has_user_cache or not workspace.is_dir() or not os.access(workspace, os.W_OK):
        return None
    folder = workspace / ".cache" / "huggingface"
    variables["HF_HUB_CACHE"] = str(folder / "hub")
    if not _is_users_choice(variables.get("HF_DATASETS_CACHE")):
        variables["HF_DATASETS_CACHE"] = str(folder / "datasets")
    return folder


def _is_users_choice(folder: str | None) -> bool:
    """Whether a cache folder is set, and not by an image to a place that does not last."""
    if not folder:
        return False
    return IMAGE_CACHE not in Path(folder).parents or IMAGE_CACHE.is_mount()


def quiet_libraries(variables: MutableMapping[str, str] = os.environ) -> None:
    """Let libraries report errors alone. Variables that the user has set stay."""
    # Missing and unexpected weights, of which transformers warns, are checked in ``utils.model``.
    variables.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # The profiler's tracing library reports its start and stop to the terminal.
    variables.setdefault("KINETO_LOG_LEVEL", "6")
    # Set by RunPod's images; huggingface_hub uses it no longer and warns of it in each process.
    variables.pop("HF_HUB_ENABLE_HF_TRANSFER", None)
    if sys.stderr is None or not sys.stderr.isatty():
        variables.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def quiet_torch_warnings() -> None:
    """Hide the warnings of PyTorch's native code; before torch is imported.

    Its profiler warns of each block of memory that it did not see allocated.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def draw_without_display() -> None:
    """Let matplotlib draw into files; before it is imported.

    The backend of a notebook, or one that is not installed, would end the script.
    """
    os.environ["MPLBACKEND"] = "Agg"


def raise_on_signals() -> None:
    """Raise ``Interrupted`` on SIGINT and SIGTERM, so that ``with`` and ``finally`` clean up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_interrupted)
    sys.unraisablehook = _interrupt_again


def _raise_interrupted(number: int, frame: object) -> None:
    raise Interrupted(number)


def _interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception was ignored.

    Python ignores what is raised while it runs a ``__del__`` method. Libraries have many of them
    while they load a model, and the run would go on as if nobody had interrupted it.
    """
    error = unraisable.exc_value
    if not isinstance(error, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    # Later, because a signal that arrives in this function would be ignored, too.
    retry = threading.Timer(RETRY_S, os.kill, (os.getpid(), error.signal_number))
    retry.daemon = True
    retry.start()


def escape_unprintable_output() -> None:
    """Show characters that the terminal cannot print as escapes (``\\u4e2d``)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A closed stream cannot be reconfigured.
            with suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")


def configure_logging(level: str, log_file: Path | None) -> None:
    """Send records of ``level`` and above to standard error, and all records to ``log_file``."""
    # A full disk is reported once, by the code that cannot write a result.
    logging.raiseExceptions = False
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(level)
    # What the console has printed is on the terminal already.
    terminal.addFilter(lambda record: record.name != CONSOLE_LOGGER)
    terminal.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handlers: list[logging.Handler] = [terminal]
    if log_file is not None:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace"))
    line_format = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG, format=line_format, handlers=handlers, force=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def prepare_evaluation(*, on_cuda: bool) -> None:
    """What a process that evaluates a data set needs: the runner's own, or a worker of Ray.

    Without it the results are the same, but the process takes more memory or time.
    """
    import pyarrow as pa

    # Arrow's own allocator keeps some 50 MB of what each chunk frees.
    pa.set_memory_pool(pa.system_memory_pool())
    if on_cuda:
        # The tokenizer's thread may delay the launching one for less than a kernel's time.
        sys.setswitchinterval(SWITCH_INTERVAL_S)


def prepare_ray() -> None:
    """The variables that Ray reads when it is imported or started."""
    os.environ.update(RAY_VARIABLES)
