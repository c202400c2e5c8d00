"""Reads one long turn and reports what it cost, with each twin: clients/conformance/bench.ts starts it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from responses_gateway import Client, Session, aio

WARM_UP, INPUT = os.environ["BENCH_WARM_UP"], os.environ["BENCH_INPUT"]


def read(session: Session, input: str) -> int:
    return sum(1 for _ in session.start(input))


def measure_sync() -> None:
    with Client() as client, client.connect(model="gpt-5.5") as session:
        read(session, WARM_UP)
        cpu, began = time.process_time(), time.perf_counter()
        report(read(session, INPUT), began, cpu)


async def measure_async() -> None:
    async with aio.Client() as client, client.connect(model="gpt-5.5") as session:
        async for _ in await session.start(WARM_UP):
            pass
        cpu, began, events = time.process_time(), time.perf_counter(), 0
        async for _ in await session.start(INPUT):
            events += 1
        report(events, began, cpu)


def report(events: int, began: float, cpu: float) -> None:
    spent = {"seconds": time.perf_counter() - began, "cpuSeconds": time.process_time() - cpu}
    print(json.dumps({"events": events, **spent}))


if __name__ == "__main__":
    if sys.argv[1:] == ["asyncio"]:
        asyncio.run(measure_async())
    else:
        measure_sync()
