import json

from openai import OpenAI
from pydantic import BaseModel

openai = OpenAI()
model = "gpt-5.5"

# A conversation, streamed.
with openai.responses.stream(model=model, input="Hello") as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="")
    first = stream.get_final_response()
second = openai.responses.create(model=model, input="And shorter?", previous_response_id=first.id)
print(f"\n{second.output_text}")


# A tool loop.
def weather(city: str) -> dict[str, object]:
    return {"city": city, "celsius": 21}


tools = [
    {
        "type": "function",
        "name": "weather",
        "description": "Weather of a city",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    }
]
response = openai.responses.create(model=model, tools=tools, input="How warm is it in Oslo?")
while calls := [item for item in response.output if item.type == "function_call"]:
    outputs = [
        {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": json.dumps(weather(**json.loads(call.arguments))),
        }
        for call in calls
    ]
    response = openai.responses.create(
        model=model, tools=tools, input=outputs, previous_response_id=response.id
    )
print(len(response.output_text) > 0)


# A structured answer.
class Place(BaseModel):
    city: str
    country: str


parsed = openai.responses.parse(
    model=model, input="Where is the opera with the white roof?", text_format=Place
)
print(sorted(parsed.output_parsed.model_dump()))
