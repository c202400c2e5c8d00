from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
import pytest

from responses_gateway import function
from responses_gateway.tools import error_result, text_of


@dataclass
class Point:
    x: float
    y: float


class Order(pydantic.BaseModel):
    item: str
    count: int = 1


def test_schema_from_type_hints() -> None:
    @function
    def search(
        query: Annotated[str, "What to look for"],
        unit: Literal["km", "mi"],
        points: list[Point],
        limit: int | None = None,
        exact: bool = False,
    ) -> str:
        """Searches.

        At length."""
        return f"{query} {unit} {points} {limit} {exact}"

    assert search.name == "search" and search.description == "Searches.\n\nAt length." and search.strict
    point = {
        "type": "object",
        "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
        "required": ["x", "y"],
        "additionalProperties": False,
    }
    assert search.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to look for"},
            "unit": {"type": "string", "enum": ["km", "mi"]},
            "points": {"type": "array", "items": point},
            "limit": {"type": ["integer", "null"]},
            "exact": {"type": ["boolean", "null"]},
        },
        "required": ["query", "unit", "points", "limit", "exact"],
        "additionalProperties": False,
    }
    arguments = {"query": "a", "unit": "km", "points": [{"x": 1, "y": 2}], "limit": None, "exact": None}
    assert search.call(arguments) == "a km [Point(x=1, y=2)] None False"


def test_pydantic_models_are_validated() -> None:
    @function
    def buy(order: Order) -> Order:
        return order

    assert buy.call({"order": {"item": "tea"}}) == Order(item="tea", count=1)
    assert text_of(buy.call({"order": {"item": "tea"}})) == '{"item":"tea","count":1}'
    with pytest.raises(pydantic.ValidationError):
        buy.call({"order": {"item": 3}})
    assert buy.parameters["properties"]["order"]["properties"]["item"]["type"] == "string"


def test_arguments_that_do_not_fit() -> None:
    @function
    def half(number: int) -> float:
        return number / 2

    with pytest.raises(TypeError):
        half.call({"number": "four"})
    with pytest.raises(ValueError, match="unknown arguments"):
        half.call({"number": 4, "base": 2})
    with pytest.raises(TypeError, match="no JSON Schema"):

        @function
        def odd(thing: complex) -> None: ...


def test_results() -> None:
    assert text_of("as it is") == "as it is"
    assert text_of(Point(1, 2)) == '{"x":1,"y":2}'
    assert json.loads(error_result(KeyError("k"))) == {"error": "'k'"}
    assert json.loads(error_result(RuntimeError())) == {"error": "RuntimeError"}

    @function
    def loose(anything: dict[str, Any]) -> None: ...

    assert not loose.strict
