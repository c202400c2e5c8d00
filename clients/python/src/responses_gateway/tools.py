"""Functions that the model may call, and the loop over them without its IO."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .gen import create_pb2, items_pb2, tools_pb2
from .types import Request, Result, call_output

#: A model that still calls functions after so many turns is most likely going in circles.
DEFAULT_MAX_TURNS = 32

_JSON_TYPES: Mapping[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}
_SCALARS: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


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
    writer = _SchemaWriter()
    properties: dict[str, Any] = {}
    optional: set[str] = set()
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{call.__name__}: {name} is neither a plain nor a keyword parameter")
        schema = writer.schema(hints.get(name, str))
        if parameter.default is not parameter.empty:
            optional.add(name)
            schema = _nullable(schema)
        properties[name] = schema
    parameters = _object(properties)
    if writer.definitions:
        parameters["$defs"] = writer.definitions

    def invoke(arguments: dict[str, Any]) -> Any:
        unknown = [name for name in arguments if name not in properties]
        if unknown:
            raise ValueError(f"unknown arguments: {', '.join(unknown)}")
        # Strict mode makes the model name every member: null stands for the default.
        given = {k: v for k, v in arguments.items() if not (v is None and k in optional)}
        return call(**{k: _convert(hints.get(k, str), v) for k, v in given.items()})

    name = getattr(call, "__name__", type(call).__name__)
    return Function(name, inspect.getdoc(call) or "", parameters, invoke, strict=writer.strict)


def as_functions(given: Sequence[Function | Callable[..., Any]]) -> Sequence[Function]:
    return [one if isinstance(one, Function) else function(one) for one in given]


class ToolRound:
    """The state of a tool loop between its turns."""

    def __init__(self, request: Request, functions: Sequence[Function], max_turns: int) -> None:
        self._functions = {one.name: one for one in functions}
        self._left = max_turns
        specs = [*(request.tools or ()), *(one.spec() for one in functions)]
        self.request = dataclasses.replace(request, tools=specs)

    @property
    def is_last(self) -> bool:
        return self._left <= 0

    def calls_of(self, result: Result) -> list[items_pb2.FunctionCall]:
        """The calls to make; none for a turn that did not complete."""
        self._left -= 1
        return result.function_calls if result.outcome == "completed" else []

    def call(self, call: items_pb2.FunctionCall) -> str:
        """Never raises: what goes wrong is the result."""
        try:
            return text_of(self.invoke(call))
        except Exception as error:
            return error_result(error)

    def invoke(self, call: items_pb2.FunctionCall) -> Any:
        found = self._functions.get(call.name)
        if found is None:
            raise LookupError(f"there is no function {call.name}")
        arguments = json.loads(call.arguments)
        if not isinstance(arguments, dict):
            raise ValueError("the arguments are no object")
        return found.call(arguments)

    def advance(self, calls: Sequence[items_pb2.FunctionCall], outputs: Sequence[str]) -> None:
        create = None
        if self.request.create is not None:
            create = create_pb2.CreateBody()
            create.CopyFrom(self.request.create)
            # A forced tool choice would force the call again and again.
            for name in ("tool_choice", "previous_response_id"):
                create.ClearField(name)
        self.request = dataclasses.replace(
            self.request,
            input=[call_output(call.call_id, output) for call, output in zip(calls, outputs, strict=True)],
            create=create,
            turn_id=None,
            previous_response_id=None,
            new_conversation=False,
            full_history=False,
        )


def text_of(value: Any) -> str:
    """A result for the model: texts as they are, all else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def error_result(error: Exception) -> str:
    message = str(error) or type(error).__name__
    return json.dumps({"error": message}, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _SchemaWriter:
    def __init__(self) -> None:
        self.strict = True
        self.definitions: dict[str, Any] = {}

    def schema(self, hint: Any) -> dict[str, Any]:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            described = self.schema(arguments[0])
            texts = [text for text in arguments[1:] if isinstance(text, str)]
            return {**described, "description": texts[0]} if texts else described
        if origin in (Union, types.UnionType):
            others = [one for one in arguments if one is not type(None)]
            if len(others) == 1:
                return _nullable(self.schema(others[0]))
            return {"anyOf": [self.schema(one) for one in arguments]}
        if origin is Literal:
            kind = "string" if all(isinstance(one, str) for one in arguments) else "integer"
            return {"type": kind, "enum": list(arguments)}
        if origin in (list, Sequence, tuple) or hint in (list, tuple):
            return {"type": "array", "items": self.schema(arguments[0]) if arguments else {}}
        if origin is dict or hint is dict:
            self.strict = False
            values = self.schema(arguments[1]) if arguments else True
            return {"type": "object", "additionalProperties": values}
        if hint in _SCALARS:
            return {"type": _SCALARS[hint]}
        if hint is type(None):
            return {"type": "null"}
        if hasattr(hint, "model_json_schema"):
            return self._pydantic(hint)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            hints = typing.get_type_hints(hint, include_extras=True)
            return _object({field.name: self.schema(hints[field.name]) for field in dataclasses.fields(hint)})
        if hint is Any:
            self.strict = False
            return {}
        raise TypeError(f"{hint!r} has no JSON Schema")

    def _pydantic(self, model: Any) -> dict[str, Any]:
        schema: dict[str, Any] = dict(model.model_json_schema())
        self.definitions.update(schema.pop("$defs", {}))
        # Whether a model fits strict mode is its author's business; most with defaults do not.
        self.strict = False
        return schema


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, list) and "null" in kind:
        return schema
    if not isinstance(kind, str):
        return {"anyOf": [schema, {"type": "null"}]}
    nullable = {**schema, "type": [kind, "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _convert(hint: Any, value: Any) -> Any:
    """Builds the models and dataclasses that a hint asks for; the rest stays as JSON gives it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin is Annotated:
        return _convert(arguments[0], value)
    if origin in (Union, types.UnionType):
        others = [one for one in arguments if one is not type(None)]
        return _convert(others[0], value) if len(others) == 1 else value
    if origin in (list, Sequence) and isinstance(value, list):
        return [_convert(arguments[0], one) for one in value] if arguments else value
    if hasattr(hint, "model_validate"):
        return hint.model_validate(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint, include_extras=True)
        return hint(**{name: _convert(hints.get(name), one) for name, one in value.items()})
    expected = _JSON_TYPES.get(hint)
    if expected is not None and not isinstance(value, expected):
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return value
