"""JSON Schemas from Python types, and values of these types from JSON."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_JSON_TYPES: Mapping[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}
_SCALARS: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema_of(kind: Any) -> dict[str, Any]:
    """A strict schema of a dataclass or pydantic model: every object closed, every member required."""
    writer = SchemaWriter()
    schema = writer.schema(kind)
    if schema.get("type") != "object":
        raise TypeError(f"{kind!r} is no dataclass and no pydantic model")
    if writer.definitions:
        schema["$defs"] = writer.definitions
    _close(schema)
    return schema


def parse_json(kind: Any, text: str) -> Any:
    """A value of `kind`. Raises whatever does not fit."""
    if hasattr(kind, "model_validate_json"):
        return kind.model_validate_json(text)
    return convert(kind, json.loads(text))


def name_of(kind: Any) -> str:
    return "".join(char if char.isalnum() or char in "_-" else "_" for char in getattr(kind, "__name__", "answer"))[:64]


class SchemaWriter:
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
                return nullable(self.schema(others[0]))
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
            return closed_object({field.name: self.schema(hints[field.name]) for field in dataclasses.fields(hint)})
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


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, list) and "null" in kind:
        return schema
    if not isinstance(kind, str):
        return {"anyOf": [schema, {"type": "null"}]}
    nullable = {**schema, "type": [kind, "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for one in schema:
            _close(one)
    if not isinstance(schema, dict):
        return
    # Strict mode has no defaults: the model names every member.
    schema.pop("default", None)
    properties = schema.get("properties")
    if isinstance(properties, dict):
        schema["required"] = list(properties)
        schema["additionalProperties"] = False
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            _close(list(value.values()))
        elif key not in ("enum", "const", "required"):
            _close(value)


def convert(hint: Any, value: Any) -> Any:
    """Builds the models and dataclasses that a hint asks for; the rest stays as JSON gives it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin is Annotated:
        return convert(arguments[0], value)
    if origin in (Union, types.UnionType):
        others = [one for one in arguments if one is not type(None)]
        return convert(others[0], value) if len(others) == 1 else value
    if origin in (list, Sequence) and isinstance(value, list):
        return [convert(arguments[0], one) for one in value] if arguments else value
    if hasattr(hint, "model_validate"):
        return hint.model_validate(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint, include_extras=True)
        return hint(**{name: convert(hints.get(name), one) for name, one in value.items()})
    expected = _JSON_TYPES.get(hint)
    if expected is not None and not isinstance(value, expected):
        raise TypeError(f"{value!r} is no {hint.__name__}")
    return value
