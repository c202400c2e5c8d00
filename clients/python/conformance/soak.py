"""Runs turns in all ways while the connection is cut: clients/conformance/soak.ts starts it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from typing import Any

from responses_gateway import Client, GatewayError, LoopOptions, Session, aio

TURNS, SEED, WORKERS = int(os.environ["SOAK_TURNS"]), int(os.environ["SOAK_SEED"]), 8
# One turn, whatever is done with it, ends within this.
MOST_SECONDS = 60.0
WAYS = ("final", "read", "slow", "cancel", "drop", "close", "loop", "raising", "limit", "leave", "steer")
LOGGER = logging.getLogger("soak")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False


def look(query: str) -> str:
    """Looks something up."""
    return query


def fails(query: str) -> str:
    """Fails, in one way or another."""
    raise (RuntimeError if len(query) % 2 else SystemExit)("no luck")


def limits(way: str) -> LoopOptions:
    return {"max_turns": 2} if way == "limit" else {"max_time": MOST_SECONDS}


def play(session: Session, worker: int, count: int, outcomes: Counter[str]) -> None:
    chance = random.Random(SEED + worker)
    for _ in range(count):
        way, lane = chance.choice(WAYS), session.lane(f"lane-{worker}-{chance.randrange(3)}")
        deltas = f"#deltas={chance.randrange(5, 300)}"
        try:
            if way in ("loop", "raising", "limit"):
                functions = [fails] if way == "raising" else [look]
                outcomes[lane.run_tools(f"#tools=3 {deltas}", functions, **limits(way)).outcome] += 1
                continue
            if way == "leave":
                with closing(lane.tool_turns(f"#tools=1 {deltas}", [look])) as turns:  # type: ignore[type-var]
                    next(turns)
                outcomes["left"] += 1
                continue
            turn = lane.start(deltas)
            if way == "drop":
                outcomes["dropped"] += 1
                continue
            for event in turn.events(timeout=MOST_SECONDS) if way != "final" else ():
                if way == "slow":
                    time.sleep(chance.random() / 500)
                if event.type == "response.output_text.delta":
                    if way == "cancel":
                        turn.cancel()
                    if way == "steer":
                        turn.steer("and another thing")
                        way = "read"
                    if way == "close":
                        turn.close()
            outcomes[turn.final(timeout=MOST_SECONDS).outcome] += 1
        except GatewayError as error:
            outcomes[error.reason] += 1


def soak() -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    with Client(logger=LOGGER) as client, client.connect(model="gpt-5.5") as session:
        with ThreadPoolExecutor(WORKERS) as pool:
            done = [pool.submit(play, session, n, TURNS // WORKERS + 1, outcomes) for n in range(WORKERS)]
            for one in done:
                one.result()
        resumes = session.stats.resumes
    time.sleep(0.5)
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return {"turns": sum(outcomes.values()), "outcomes": dict(outcomes), "resumes": resumes, "left": left}


async def play_async(session: aio.Session, worker: int, count: int, outcomes: Counter[str]) -> None:
    chance = random.Random(SEED + worker)
    for _ in range(count):
        way, lane = chance.choice(WAYS), session.lane(f"lane-{worker}-{chance.randrange(3)}")
        deltas = f"#deltas={chance.randrange(5, 300)}"
        try:
            async with asyncio.timeout(MOST_SECONDS):
                if way in ("loop", "raising", "limit"):
                    functions = [fails] if way == "raising" else [look]
                    result = await lane.run_tools(f"#tools=3 {deltas}", functions, **limits(way))
                    outcomes[result.outcome] += 1
                    continue
                if way == "leave":
                    async with aclosing(lane.tool_turns(f"#tools=1 {deltas}", [look])) as turns:
                        await anext(turns)
                    outcomes["left"] += 1
                    continue
                turn = await lane.start(deltas)
                if way == "drop":
                    outcomes["dropped"] += 1
                    continue
                if way != "final":
                    async for event in turn:
                        if way == "slow":
                            await asyncio.sleep(chance.random() / 500)
                        if event.type == "response.output_text.delta":
                            if way == "cancel":
                                await turn.cancel()
                            if way == "steer":
                                await turn.steer("and another thing")
                                way = "read"
                            if way == "close":
                                turn.close()
                outcomes[(await turn.final()).outcome] += 1
        except GatewayError as error:
            outcomes[error.reason] += 1


async def soak_async() -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context.get("message"))))
    async with aio.Client(logger=LOGGER) as client, client.connect(model="gpt-5.5") as session:
        await asyncio.gather(*(play_async(session, n, TURNS // WORKERS + 1, outcomes) for n in range(WORKERS)))
        resumes = session.stats.resumes
    await asyncio.sleep(0.5)
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("responses-gateway")]
    total = sum(outcomes.values())
    return {"turns": total, "outcomes": dict(outcomes), "resumes": resumes, "left": [*left, *ours, *complaints]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(soak_async(), debug=False) if sys.argv[1:] == ["asyncio"] else soak()))
