"""The steps about turns without a session, and about stored responses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import responses_gateway as gateway

STEPS = ("create", "follow", "get", "delete", "cancel_response", "input_items", "count", "models")


class Stored:
    def __init__(self, read_input: Callable[[Any], Any], note: Any, compare: Any, played: Any) -> None:
        self._input = read_input
        self._note = note
        self._compare = compare
        self._played = played
        self._known: dict[str, Any] = {}

    def step(self, client: Any, kind: str, step: dict[str, Any]) -> None:
        responses = client.responses
        known = self._known.get(step.get("response", ""))
        response_id = step.get("response", "") if known is None else known.turn.result.response_id
        if kind == "create":
            extra = {"background": True} if step.get("background") else None
            request = gateway.Request(model="gpt-5.5", input=self._input(step["input"]), extra=extra)
            request = dataclasses.replace(request, **step.get("options", {}))
            stream = responses.create(request, idempotency_key=step.get("idempotency_key"))
            self._read(self._known.setdefault(step["response"], self._played(stream)), step, client)
        elif kind == "follow":
            after = known.turn.last_sequence_number if step.get("after_last") else None
            played = self._played(responses.stream(response_id, starting_after=after))
            if step.get("together"):
                played.types = copy.copy(known.types)
            self._read(played, step, client)
        elif kind == "get":
            response = responses.get(response_id)
            assert response.status == step["status"], f"status {response.status}"
            if "text" in step:
                text = response.output[0].message.content[0].output_text.text
                assert text == step["text"], f"text {text!r}"
        elif kind == "delete":
            responses.delete(response_id)
        elif kind == "cancel_response":
            response = responses.cancel(response_id)
            assert response.status == step["status"], f"status {response.status}"
        elif kind == "input_items":
            items = responses.input_items(response_id, limit=step.get("limit"), order=step.get("order"))
            texts = [_text(item.message) for item in items]
            assert texts == step["texts"], f"texts {texts}"
        elif kind == "count":
            count = responses.count_input_tokens(gateway.Request(model="gpt-5.5", input=self._input(step["input"])))
            assert count >= step["at_least"], f"{count} tokens"
        else:
            ids = [model.id for model in responses.models()]
            assert ids == step["ids"], f"models {ids}"

    def _read(self, played: Any, step: dict[str, Any], client: Any) -> None:
        for number, event in enumerate(played.turn, 1):
            self._note(played, event)
            if number == step.get("read"):
                played.turn.close()
                return
            if number == step.get("close_client_after"):
                client.close()
        played.result = played.turn.final()
        self._compare(step, played)


def _text(message: Any) -> str:
    return str(message.content[0].input_text.text if message.content else message.text)
