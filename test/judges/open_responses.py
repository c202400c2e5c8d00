"""Judges with the pydantic models of the Open Responses specification (PyPI openresponses-types).

  open_responses.py schema   prints the JSON Schema of the models, without prose
  open_responses.py judge    reads lines [model, value] and prints a line for each that does not fit
"""

import json
import sys

from openresponses_types import types
from pydantic import TypeAdapter, ValidationError

ROOTS = [name for name in dir(types) if name.endswith("StreamingEvent")]
ROOTS += ["WebSocketErrorEvent", "ResponseResource", "CompactResource"]
PROSE = {"description", "title", "default", "examples"}


def bare(node: object) -> object:
    if isinstance(node, list):
        return [bare(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: bare(each) for name, each in value.items()} if key in ("properties", "$defs") else bare(value)
        for key, value in node.items()
        if key not in PROSE
    }


def schema() -> dict[str, object]:
    found: dict[str, object] = {}
    for name in ROOTS:
        one = TypeAdapter(getattr(types, name)).json_schema(ref_template="#/$defs/{model}")
        found.update(one.pop("$defs", {}))
        found[name] = one
    return {"$defs": {name: bare(found[name]) for name in sorted(found)}}


def judge() -> int:
    wrong = count = 0
    for line in sys.stdin:
        model, value = json.loads(line)
        count += 1
        try:
            TypeAdapter(getattr(types, model)).validate_python(value)
        except ValidationError as error:
            wrong += 1
            first = error.errors()[0]
            print(f"{model}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    print(f"{count - wrong} of {count} fit")
    return 1 if wrong or count == 0 else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["schema"]:
        print(json.dumps(schema(), indent=1))
    else:
        sys.exit(judge())
