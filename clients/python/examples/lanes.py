"""Runs eight agents side by side over one stream, with asyncio: python examples/lanes.py"""

import asyncio

from responses_gateway import TurnError, aio


async def agent(lane: aio.Lane) -> None:
    for question in ("Name a river.", "And a longer one?"):
        try:
            turn = await lane.start(question)
            print(f"{lane.id}: {(await turn.final()).text}")
        except TurnError as error:
            print(f"{lane.id}: {error.reason}, replay {error.replay}")
            return


async def main() -> None:
    async with aio.Client() as client, client.connect(model="gpt-5.5") as session:
        await asyncio.gather(*(agent(session.lane(f"agent-{n}")) for n in range(1, 9)))


if __name__ == "__main__":
    asyncio.run(main())
