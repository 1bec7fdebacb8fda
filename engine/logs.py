"""Logs: structlog on standard error, pretty on a terminal, JSON lines elsewhere."""

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

from engine.config import LogConfig


class _Log:
    """A file that may refuse: a full disk under the log is no reason to stop deciding."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


def configure_logs(config: LogConfig) -> None:
    """Set structlog up for this process."""
    pretty = config.format == "pretty" or (config.format == "auto" and sys.stderr.isatty())
    renderer = (
        structlog.dev.ConsoleRenderer()
        if pretty
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Log(sys.stderr))),
        cache_logger_on_first_use=True,
    )
