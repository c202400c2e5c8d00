"""Runs the scripted cases of clients/conformance, each with both twins. See the README there."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from .bridge import AsyncBridge
from .run import Run


def main() -> None:
    control = Control(os.environ["CONFORMANCE_CONTROL_URL"])
    bridge = AsyncBridge()
    for case in control.call("GET", "/cases"):
        began = time.monotonic()
        error = ""
        for twin, client in (("sync", None), ("asyncio", bridge)):
            try:
                run_case(control, case, client)
            except Exception as problem:
                error = f"{twin}: {problem or type(problem).__name__}"
                break
        outcome = {"case": case["name"], "ok": not error, "error": error, "ms": (time.monotonic() - began) * 1000}
        print(json.dumps(outcome), flush=True)
    bridge.close()


def run_case(control: Control, case: dict[str, Any], bridge: AsyncBridge | None) -> None:
    name = {"case": case["name"]}
    address = control.call("POST", "/start", name)["address"]
    run = Run(address, lambda action: control.call("POST", "/control", {**name, "action": action}), bridge)
    try:
        for index, step in enumerate(case["steps"]):
            for kind, fields in step.items():
                try:
                    run.step(kind, fields)
                except Exception as error:
                    raise AssertionError(f"step {index + 1} ({kind}): {type(error).__name__} {error}") from error
    except BaseException:
        run.close()
        control.call("POST", "/finish", name)
        raise
    run.close()
    finished = control.call("POST", "/finish", name)
    assert finished["ok"], f"journal: {finished.get('error')}"


class Control:
    def __init__(self, url: str) -> None:
        self._url = url

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url + path, data, method=method)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.read().decode()}") from error


if __name__ == "__main__":
    main()
    sys.exit(0)
