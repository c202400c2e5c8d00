"""Functions that the model may call."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .gen import tools_pb2
from .schema import SchemaWriter, closed_object, convert, nullable


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of the program: made by `function`, or by hand with a JSON Schema."""

    name: str
    description: str
    #: JSON Schema of the arguments. Its order is kept: the upstream's prompt cache depends on it.
    parameters: Mapping[str, Any]
    call: Callable[[dict[str, Any]], Any]
    strict: bool = True

    def spec(self) -> tools_pb2.Tool:
        return tools_pb2.Tool(
            function=tools_pb2.FunctionTool(
                name=self.name,
                description=self.description,
                parameters=json.dumps(self.parameters, separators=(",", ":")).encode(),
                strict=self.strict,
            )
        )


def function(call: Callable[..., Any]) -> Function:
    """Makes a Function of a callable: its name, its docstring, and a schema from its type hints. Usable as a decorator.

    Hints may be str, int, float, bool, Literal, list, dict, Optional, dataclasses and pydantic models;
    Annotated[str, "text"] describes a parameter. Parameters with a default may be null. Coroutine functions are for
    the asyncio client."""
    hints = typing.get_type_hints(call, include_extras=True)
    writer = SchemaWriter()
    properties: dict[str, Any] = {}
    optional: set[str] = set()
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{call.__name__}: {name} is neither a plain nor a keyword parameter")
        schema = writer.schema(hints.get(name, str))
        if parameter.default is not parameter.empty:
            optional.add(name)
            schema = nullable(schema)
        properties[name] = schema
    parameters = closed_object(properties)
    if writer.definitions:
        parameters["$defs"] = writer.definitions

    def invoke(arguments: dict[str, Any]) -> Any:
        unknown = [name for name in arguments if name not in properties]
        if unknown:
            raise ValueError(f"unknown arguments: {', '.join(unknown)}")
        # Strict mode makes the model name every member: null stands for the default.
        given = {k: v for k, v in arguments.items() if not (v is None and k in optional)}
        return call(**{k: convert(hints.get(k, str), v) for k, v in given.items()})

    name = getattr(call, "__name__", type(call).__name__)
    return Function(name, inspect.getdoc(call) or "", parameters, invoke, strict=writer.strict)


def as_functions(given: Sequence[Function | Callable[..., Any]]) -> Sequence[Function]:
    return [one if isinstance(one, Function) else function(one) for one in given]


def text_of(value: Any) -> str:
    """A result for the model: texts as they are, all else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def error_result(error: BaseException | str) -> str:
    message = str(error) or type(error).__name__
    return json.dumps({"error": message}, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
