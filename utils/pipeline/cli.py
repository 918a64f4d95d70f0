"""What all command lines share: flags, exit codes, signals, logs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from utils.config_loader import Config, default_config, load_config
from utils.core.errors import Interrupted, UserError
from utils.core.files import write_error
from utils.pipeline import console, hints, startup
from utils.pipeline.lock import run_lock

logger = logging.getLogger(__name__)

Main = Callable[[Config, argparse.Namespace], object]
INTERRUPTED_CODES = (130, 143)
GATE_VIOLATED = 3
"""Exit code of a comparison one of whose gates is violated."""
GATE_UNDECIDED = 4
"""Exit code of a comparison whose data cannot decide a gate, and none is violated."""
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
VERIFY_HELP = (
    "try the three first suggestions that are settings, or these settings, and show predicted "
    "beside measured speed-up"
)


def make_parser(
    description: str, example: str, *, settings_flag: str = "--set"
) -> argparse.ArgumentParser:
    """A parser with the flags that every script takes.

    Args:
        settings_flag: changes a setting. A script that measures two sides has another name for it,
            because ``--set`` changes one side there.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        default=default_config(),
        metavar="PATH",
        help="settings file (default: %(default)s)",
    )
    parser.add_argument(
        settings_flag,
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"change one setting, for example {settings_flag} model.device=cpu; "
        "may be given often",
    )
    parser.add_argument(
        "--log-level",
        default="WARNING",
        choices=LOG_LEVELS,
        type=str.upper,
        help="what the terminal shows",
    )
    return parser


def common_arguments(args: argparse.Namespace) -> list[str]:
    """The shared flags of ``args`` as words, to pass them on to another script."""
    words = ["--config", args.config, "--log-level", args.log_level]
    for override in args.overrides:
        words.append(f"--set={override}")
    return words


def run_script(
    parser: argparse.ArgumentParser,
    run: Main,
    argv: Sequence[str] | None = None,
    *,
    exclusive: bool = False,
) -> int:
    """Parse the flags, load the settings, call ``run``, and turn how it ended into an exit code.

    Args:
        run: the script's work; an integer that it returns is the exit code.
        argv: the command line without the script; None takes that of the process.
        exclusive: ``run`` writes results, so it holds the lock of its results folder.

    Returns:
        0: done; 1: failed inside; 2: the user must change something; 3 or 4: a gate is violated or
        cannot be decided; 130 or 143: interrupted.
    """
    startup.escape_unprintable_output()
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    startup.raise_on_signals()
    with hints.command_line(args.config, args.overrides, [sys.argv[0], *words]):
        code = _run(Path(parser.prog).stem, run, args, exclusive=exclusive)
    if code in INTERRUPTED_CODES and argv is None:
        exit_at_once(code)
    return code


def exit_at_once(code: int) -> None:
    """End the process at once, with everything written.

    The interpreter's own end would wait for threads of native libraries, and an interrupted one may
    abort the process instead (``terminate called without an active exception``, exit code -6).
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(name: str, run: Main, args: argparse.Namespace, *, exclusive: bool) -> int:
    started = time.perf_counter()
    log_file = None
    try:
        startup.configure_logging(args.log_level, None)
        config = load_config(args.config, args.overrides)
        is_status = getattr(args, "status", False)
        if not is_status:
            log_file = _create_log_file(config.files.logs_dir, name)
            startup.configure_logging(args.log_level, log_file)
        logger.info("%s started: %s", name, " ".join(sys.argv))
        runs_nothing = is_status or getattr(args, "dry_run", False)
        with run_lock(config.files.lock) if exclusive and not runs_nothing else nullcontext():
            code = run(config, args)
    except UserError as error:
        console.error(error)
        return error.exit_code
    except (Interrupted, KeyboardInterrupt) as error:
        return _report_interruption(error)
    except Exception as error:  # noqa: BLE001 - the outermost boundary: the rest is exit code 1
        _report_failure(name, error, log_file)
        return 1
    finally:
        logger.info("%s took %.2f s", name, time.perf_counter() - started)
    return code if isinstance(code, int) else 0


def _report_interruption(error: BaseException) -> int:
    """Print the command that continues; the exit code."""
    if isinstance(error, Interrupted) and error.is_reported:
        return error.exit_code
    resume = hints.resume_command()
    console.print_error(f"Interrupted; everything finished so far is kept. Continue with: {resume}")
    if isinstance(error, Interrupted):
        return error.exit_code
    return 130


def _report_failure(name: str, error: Exception, log_file: Path | None) -> None:
    logger.debug("failed", exc_info=True)
    where = "use --log-level DEBUG to see the traceback"
    if log_file is not None:
        where = f"the traceback is in {log_file}"
    console.print_error(f"{name} failed: {type(error).__name__}: {error}\n  {where}")


def make_simple_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of a file of ``scripts/`` without flags of its own."""
    example = f"python scripts/{Path(sys.argv[0]).name} --config configs/demo.yaml"
    return make_parser(description or "", example)


def check_flags(parser: argparse.ArgumentParser) -> None:
    """Answer ``--help`` and refuse wrong flags now; before the imports that take seconds."""
    parser.parse_args()


def run_simple_script(
    run: Callable[[Config], object], description: str | None, *, exclusive: bool = False
) -> int:
    """``run_script`` for a file of ``scripts/`` without flags of its own."""
    parser = make_simple_parser(description)
    return run_script(parser, lambda config, _: run(config), exclusive=exclusive)


def _create_log_file(folder: Path, name: str) -> Path:
    started = time.strftime("%Y%m%d-%H%M%S")
    file = folder / f"{started}-{name}-{os.getpid()}.log"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise write_error(file, error) from error
    return file
