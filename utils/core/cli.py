"""What all command lines share: flags, exit codes, signals, logs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from utils.config_loader import Config, default_config, load_config
from utils.core import console, hints
from utils.core.artifacts import cannot_write
from utils.core.errors import Interrupted, UserError
from utils.core.lock import run_lock

logger = logging.getLogger(__name__)

Body = Callable[[Config, argparse.Namespace], object]
VERIFY_HELP = "try the three largest suggestions that are settings, and show predicted beside measured speed-up"


def make_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the flags that every script takes."""
    parser = argparse.ArgumentParser(
        description=description, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    how = "change one setting, for example --set model.device=cpu; may be given often"
    parser.add_argument("--config", default=default_config(), metavar="PATH", help="settings file (default: %(default)s)")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=how)
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    parser.add_argument("--log-level", default="WARNING", choices=levels, type=str.upper, help="what the terminal shows")
    return parser


def common_arguments(args: argparse.Namespace) -> list[str]:
    """The shared flags of ``args`` as words, to hand them on to another script."""
    return ["--config", args.config, "--log-level", args.log_level, *(f"--set={override}" for override in args.overrides)]


def run_script(parser: argparse.ArgumentParser, body: Body, argv: Sequence[str] | None = None, *, alone: bool = False) -> int:
    """Parse, load the config, run ``body``, and turn how it ended into an exit code.

    ``alone``: ``body`` writes results, and so must be the only one in its results folder.
    Returns 0: done; 1: failed inside; 2: the user must change something; 130 or 143: interrupted.
    """
    console.start_terminal()
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with hints.command_line(args.config, args.overrides, [sys.argv[0], *words]):
        return _run(Path(parser.prog).stem, body, args, alone=alone)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)  # so that ``with`` and ``finally`` blocks clean up


def _run(name: str, body: Body, args: argparse.Namespace, *, alone: bool) -> int:
    started = time.perf_counter()
    log_file = None
    try:
        console.start_logging(args.log_level, None)
        config = load_config(args.config, args.overrides)
        log_file = _log_file(config, name)
        console.start_logging(args.log_level, log_file)
        logger.info("%s started: %s", name, " ".join(sys.argv))
        locked = alone and not getattr(args, "dry_run", False)
        with run_lock(config.files.lock) if locked else nullcontext():
            body(config, args)
    except UserError as error:
        console.error(error)
        return error.exit_code
    except (Interrupted, KeyboardInterrupt) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        resume = hints.resume_command()
        console.complain(f"Interrupted; everything finished so far is kept. Continue with: {resume}")
        return code
    except Exception as error:  # noqa: BLE001 - the outermost boundary: everything unforeseen becomes exit code 1
        logger.debug("failed", exc_info=True)
        where = f"the traceback is in {log_file}" if log_file else "use --log-level DEBUG to see the traceback"
        console.complain(f"{name} failed: {type(error).__name__}: {error}\n  {where}")
        return 1
    finally:
        logger.info("%s took %.2f s", name, time.perf_counter() - started)
    return 0


def run_file(body: Callable[[Config], object], description: str | None, *, alone: bool = False) -> int:
    """``run_script`` for a file of ``scripts/`` that takes no flags but the shared ones."""
    parser = make_parser(description or "", f"python scripts/{Path(sys.argv[0]).name} --config configs/demo.yaml")
    return run_script(parser, lambda config, _: body(config), alone=alone)


def _log_file(config: Config, name: str) -> Path:
    file = config.files.logs_dir / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{os.getpid()}.log"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise cannot_write(file, error) from error
    return file
