"""The program's logger, which may raise like all code of its own."""

from __future__ import annotations

import logging
from typing import Any


class Log:
    """Never raises: there would be nobody else to tell."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def info(self, message: str, *facts: object) -> None:
        self._tell(logging.INFO, message, *facts)

    def warning(self, message: str, *facts: object) -> None:
        self._tell(logging.WARNING, message, *facts)

    def error(self, message: str, *facts: object, exc_info: BaseException) -> None:
        self._tell(logging.ERROR, message, *facts, exc_info=exc_info)

    def _tell(self, level: int, message: str, *facts: object, **options: Any) -> None:
        try:
            self._logger.log(level, message, *facts, **options)
        except BaseException:
            pass
