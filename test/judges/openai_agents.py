"""PyPI openai-agents against the simulator: an agent with a tool, streamed and not."""

import asyncio
import os

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(True)
calls = 0


@function_tool
def weather(city: str) -> str:
    """Tells the weather."""
    global calls
    calls += 1
    return f"rain in {city}"


async def main() -> None:
    client = AsyncOpenAI(api_key="sk-judge", base_url=os.environ["SIMULATOR_URL"], max_retries=0)
    agent = Agent(
        name="Judge",
        instructions="Be brief.",
        model=OpenAIResponsesModel(model="gpt-5.5", openai_client=client),
        model_settings=ModelSettings(store=True),
        tools=[weather],
    )
    whole = await Runner.run(agent, "Weather?")
    assert "called tools 1 times" in whole.final_output, whole.final_output
    streamed = Runner.run_streamed(agent, "Weather?")
    async for _ in streamed.stream_events():
        pass
    assert "called tools 1 times" in streamed.final_output, streamed.final_output
    assert calls == 2, calls


asyncio.run(main())
