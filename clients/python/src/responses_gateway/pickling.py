"""Lets the generated messages that results and errors hold be pickled and copied.

protobuf names their module after the proto package, which is not where they are; and the first word of that package is
the name of another library.
"""

from __future__ import annotations

import copyreg
import importlib
from typing import Any

from google.protobuf.message import Message

from .gen import content_pb2, create_pb2, event_pb2, items_pb2, response_pb2, session_pb2, tools_pb2


def _parsed(module: str, name: str, data: bytes) -> Any:
    return getattr(importlib.import_module(f"{__package__}.gen.{module}"), name).FromString(data)


def _reduced(message: Message) -> tuple[Any, ...]:
    descriptor = message.DESCRIPTOR
    module = descriptor.file.name.rpartition("/")[2].replace(".proto", "_pb2")
    return _parsed, (module, descriptor.name, message.SerializeToString())


for _kind in (
    content_pb2.ContentPart,
    create_pb2.CreateBody,
    event_pb2.Event,
    event_pb2.Notice,
    event_pb2.UpstreamError,
    items_pb2.FunctionCall,
    items_pb2.InputItem,
    items_pb2.OutputItem,
    response_pb2.Response,
    session_pb2.StartTurn,
    tools_pb2.Tool,
):
    copyreg.pickle(_kind, _reduced)
