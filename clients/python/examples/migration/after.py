from pydantic import BaseModel

from responses_gateway import Client


def weather(city: str) -> dict[str, object]:
    """Weather of a city"""
    return {"city": city, "celsius": 21}


class Place(BaseModel):
    city: str
    country: str


with Client() as client, client.connect(model="gpt-5.5") as session:
    # A conversation, streamed.
    for event in session.start("Hello"):
        print(event.text_delta, end="")
    print(f"\n{session.start('And shorter?').final().text}")

    # A tool loop.
    result = session.lane("agent").run_tools("How warm is it in Oslo?", [weather])
    print(len(result.text) > 0)

    # A structured answer.
    answer = session.lane("places").parse("Where is the opera with the white roof?", Place)
    print(sorted(answer.parsed.model_dump()))
