"""The console script `unitbox`. `parser` defines its arguments. Each command has a module with its name."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence

from unitbox_tf import progress
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output, parser, quiet_start, signals
from unitbox_tf.problems import printable_lines

FAILED, WRONG_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0 for success, 1 after a failure, 2 for wrong arguments, 130 after Ctrl-C, 143
        after SIGTERM. A message on standard error gives the reason.
    """
    received = signals.Received()
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments, received)
    except KeyboardInterrupt:
        print("unitbox: interrupted", file=sys.stderr)
        status = signals.INTERRUPTED
    # A command that stores what it has done returns the status itself.
    return received.status if status == signals.INTERRUPTED else status


def _run(arguments: Sequence[str], received: signals.Received) -> int:
    try:
        with signals.handled(received):
            options = parser.parse(arguments)
            for path in (getattr(options, name, None) for name in ("model", "detector")):
                if path is not None:
                    cli_options.check_detector(path)
            quiet_start.install()
            command = importlib.import_module(f"unitbox_tf.cli.{options.command}")
            with _surroundings(options):
                status: int = command.run(options)
            return status
    except SystemExit as error:  # argparse has printed help or an error
        return error.code if isinstance(error.code, int) else FAILED
    except argparse.ArgumentTypeError as error:
        return _failed(error, WRONG_USAGE)
    except (ValueError, OSError, ImportError) as error:  # the last names what to install
        return _failed(error, FAILED)


def _failed(error: Exception, status: int) -> int:
    print(printable_lines(f"unitbox: error: {error}"), file=sys.stderr)
    return status


class _Lines(logging.Formatter):
    """Messages may quote names of files, which may have signs that a terminal obeys, or that are no text."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


@contextlib.contextmanager
def _surroundings(options: argparse.Namespace) -> Iterator[None]:
    """Sets what a command logs, shows and prints."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("unitbox_tf").setLevel(logging.WARNING if options.quiet else logging.INFO)
    for noisy in ("absl", "tensorflow", "matplotlib", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        if options.quiet:
            stack.enter_context(progress.hidden())
        if getattr(options, "json", False):
            stack.enter_context(output.json_alone())
        yield
