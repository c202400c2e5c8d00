"""Lets the generated messages that results, errors and events hold be pickled and copied.

protobuf names their module after the proto package, which is not where they are; and the first word of that package is
the name of another library.
"""

from __future__ import annotations

import copyreg
import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from . import gen


def _parsed(module: str, names: tuple[str, ...], data: bytes) -> Any:
    found: Any = importlib.import_module(f"{gen.__name__}.{module}")
    for name in names:
        found = getattr(found, name)
    return found.FromString(data)


def _reduced(message: Message) -> tuple[Any, ...]:
    descriptor = message.DESCRIPTOR
    module = descriptor.file.name.rpartition("/")[2].replace(".proto", "_pb2")
    names = descriptor.full_name.removeprefix(f"{descriptor.file.package}.").split(".")
    return _parsed, (module, tuple(names), message.SerializeToString())


def _register(holder: Any, names: Iterable[str]) -> None:
    for name in names:
        kind = getattr(holder, name, None)
        # Maps have no class of their own.
        if kind is not None:
            copyreg.pickle(kind, _reduced)
            _register(kind, kind.DESCRIPTOR.nested_types_by_name)


for _module in pkgutil.iter_modules(gen.__path__):
    if _module.name.endswith("_pb2"):
        _messages = importlib.import_module(f"{gen.__name__}.{_module.name}")
        _register(_messages, _messages.DESCRIPTOR.message_types_by_name)
