"""Prints the types of PyPI's openai package as one JSON Schema, each under the name that the package gives it."""

import json

from openai.types import Model, responses
from openai.types.responses import response_create_params, response_retrieve_params
from pydantic import TypeAdapter

NAMES = [
    "ResponsesServerEvent",
    "ResponseStreamEvent",
    "ResponsesClientEvent",
    "ResponseInputItem",
    "ResponseOutputItem",
    "ResponseItem",
    "Response",
    "ResponseCompactParams",
    "InputItemListParams",
    "InputTokenCountParams",
]


def main() -> None:
    types = {name: getattr(responses, name) for name in NAMES}
    types["Model"] = Model
    types["ResponseCreateParams"] = response_create_params.ResponseCreateParams
    types["ResponseRetrieveParams"] = response_retrieve_params.ResponseRetrieveParams
    found = {}
    for name, kind in types.items():
        # Models of one name differ from type to type.
        schema = TypeAdapter(kind).json_schema(ref_template="#/$defs/" + name + ":{model}")
        found.update({f"{name}:{model}": each for model, each in schema.pop("$defs", {}).items()})
        found[name] = schema
    print(json.dumps({"$defs": found}))


if __name__ == "__main__":
    main()
