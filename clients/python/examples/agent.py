"""Lets the model call two functions of the program: python examples/agent.py"""

from datetime import datetime, timezone
from typing import Annotated

from responses_gateway import Client

City = Annotated[str, "Name of the city"]


def weather(city: City) -> dict[str, object]:
    """Weather of a city, now."""
    print("  weather of", city)
    return {"city": city, "celsius": 21.5}


def clock(city: City) -> str:
    """Time in a city, now."""
    print("  time in", city)
    return datetime.now(timezone.utc).strftime("%H:%M")


def main() -> None:
    with Client() as client, client.connect(model="gpt-5.5") as session:
        question = "What is the weather in Oslo, and what time is it there?"
        result = session.lane().run_tools(question, [weather, clock])
        print(result.text)
        print(result.usage.total_tokens, "tokens in the last turn")


if __name__ == "__main__":
    main()
