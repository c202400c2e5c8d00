"""PyPI openai against the simulator: a tool loop, whole and streamed, and the types of every event."""

import json
import os

from openai import OpenAI

client = OpenAI(api_key="sk-judge", base_url=os.environ["SIMULATOR_URL"], max_retries=0)
tools = [
    {
        "type": "function",
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    }
]


def outputs(response):
    return [
        {"type": "function_call_output", "call_id": item.call_id, "output": json.loads(item.arguments)["city"]}
        for item in response.output
        if item.type == "function_call"
    ]


response = client.responses.create(model="gpt-5.5", input="Weather?", tools=tools)
turns = 1
while outputs(response):
    assert turns < 5
    given = {"model": "gpt-5.5", "previous_response_id": response.id, "input": outputs(response), "tools": tools}
    with client.responses.stream(**given) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
    turns += 1
assert "called tools 1 times" in response.output_text, response.output_text
assert client.responses.retrieve(response.id).id == response.id
items = client.responses.input_items.list(response.id)
assert items.data[0].type == "function_call_output", items
