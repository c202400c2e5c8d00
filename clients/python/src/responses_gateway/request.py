"""What a turn is asked to do."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration

from .gen import content_pb2, create_pb2, event_pb2, items_pb2, session_pb2, settings_pb2, tools_pb2
from .schema import name_of, schema_of

Item: TypeAlias = items_pb2.InputItem
Part: TypeAlias = content_pb2.ContentPart
#: A text is one user message. A dict is an input item as the Responses API has it.
Input: TypeAlias = "str | Sequence[Item | Mapping[str, Any]]"
Role: TypeAlias = Literal["user", "assistant", "system", "developer"]


def message(role: Role | str, content: str | Sequence[str | Part]) -> Item:
    """A message: a text, or texts, images and files in their order."""
    if isinstance(content, str):
        return Item(message=items_pb2.Message(role=role, text=content))
    parts = [Part(input_text=content_pb2.InputText(text=one)) if isinstance(one, str) else one for one in content]
    return Item(message=items_pb2.Message(role=role, content=parts))


def image(
    url: str | None = None,
    *,
    data: bytes | None = None,
    mime: str = "image/png",
    file_id: str | None = None,
    detail: str | None = None,
) -> Part:
    """An image for `message`: by its URL, its bytes, or the id of an uploaded file."""
    if data is not None:
        url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return Part(input_image=content_pb2.InputImage(image_url=url, file_id=file_id, detail=detail))


def file(
    url: str | None = None,
    *,
    data: bytes | None = None,
    mime: str = "application/pdf",
    filename: str | None = None,
    file_id: str | None = None,
) -> Part:
    """A file for `message`: by its URL, its bytes (with a filename), or the id of an uploaded file."""
    inline = None if data is None else f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return Part(input_file=content_pb2.InputFile(file_url=url, file_data=inline, filename=filename, file_id=file_id))


def call_output(call_id: str, output: str) -> Item:
    """The result of a function call."""
    return Item(function_call_output=items_pb2.FunctionCallOutput(call_id=call_id, output=output))


def json_item(json: bytes | str) -> Item:
    """An input item as the upstream's JSON, for kinds that this client does not know."""
    return Item(json=json.encode() if isinstance(json, str) else json)


def input_items(input: Input) -> list[Item]:
    if isinstance(input, str):
        return [message("user", input)]
    return [one if isinstance(one, Item) else json_item(_json(one)) for one in input]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a turn runs. The plain options are those of the Responses API; `extra` holds members of its body that have no
    option here, `create` the same as the generated message. Options are put over `create`."""

    input: Input | None = None
    #: None: the session's.
    model: str | None = None
    #: The system message. Not inherited: give it with each turn.
    instructions: str | None = None
    #: Tools of the upstream, as dicts of the Responses API or generated messages. Not inherited either.
    tools: Sequence[tools_pb2.Tool | Mapping[str, Any]] | None = None
    store: bool | None = None
    #: Of reasoning models: "minimal", "low", "medium", "high" …
    effort: str | None = None
    #: "auto", "concise" or "detailed": summaries of the reasoning.
    reasoning_summary: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    #: A dataclass or pydantic model for `Result.parse`, or a format of the Responses API as a dict.
    text_format: type | Mapping[str, Any] | None = None
    #: "low", "medium" or "high".
    verbosity: str | None = None
    #: "auto", "none", "required", the name of a function, or a choice of the Responses API as a dict.
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    #: For instance "reasoning.encrypted_content".
    include: Sequence[str] | None = None
    #: Kept with the response; at most 16.
    metadata: Mapping[str, str] | None = None
    #: Requests with the same key share the prompt cache.
    cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    truncation: str | None = None
    #: Members of the request's body that have no option here.
    extra: Mapping[str, Any] | None = None
    create: create_pb2.CreateBody | None = None
    #: Continue from this response id, of whichever lane: a fork.
    previous_response_id: str | None = None
    new_conversation: bool = False
    #: `input` is the whole conversation, and the gateway works out what is new.
    full_history: bool = False
    #: Seconds from acceptance to outcome, kept by the gateway. None: its default, usually no limit.
    timeout: float | None = None
    wait_on_rate_limit: bool = False
    #: Unique in the session, at most 128 visible ASCII characters. None: chosen by the client.
    turn_id: str | None = None
    warm_up: bool = False

    def start_turn(self, lane_id: str, turn_id: str, trace: event_pb2.TraceContext | None) -> session_pb2.StartTurn:
        start = session_pb2.StartTurn(
            lane_id=lane_id,
            turn_id=turn_id,
            create=self._body(),
            wait_on_rate_limit=self.wait_on_rate_limit,
            trace_context=trace,
        )
        if self.previous_response_id:
            start.previous_response_id = self.previous_response_id
        elif self.new_conversation:
            start.new_conversation.SetInParent()
        if self.full_history:
            start.input_mode = session_pb2.INPUT_MODE_FULL_HISTORY
        if self.timeout is not None:
            start.timeout.CopyFrom(Duration(seconds=int(self.timeout), nanos=int(self.timeout % 1 * 1e9)))
        return start

    def body(self) -> create_pb2.CreateBody:
        """The body of a turn without a session."""
        create = self._body()
        if self.previous_response_id:
            create.previous_response_id = self.previous_response_id
        return create

    def _body(self) -> create_pb2.CreateBody:
        create = create_pb2.CreateBody()
        if self.create is not None:
            create.CopyFrom(self.create)
        for option, field in _PLAIN.items():
            value = getattr(self, option)
            if value is not None:
                setattr(create, field, value)
        if self.input is not None:
            del create.input[:]
            create.input.extend(input_items(self.input))
        if self.tools is not None:
            del create.tools[:]
            create.tools.extend(
                one if isinstance(one, tools_pb2.Tool) else tools_pb2.Tool(json=_json(one)) for one in self.tools
            )
        if self.effort is not None:
            create.reasoning.effort = self.effort
        if self.reasoning_summary is not None:
            create.reasoning.summary = self.reasoning_summary
        if self.verbosity is not None:
            create.text.verbosity = self.verbosity
        if self.text_format is not None:
            create.text.format.CopyFrom(_format(self.text_format))
        if self.tool_choice is not None:
            create.tool_choice.CopyFrom(_choice(self.tool_choice))
        if self.include is not None:
            create.include[:] = self.include
        if self.metadata is not None:
            create.metadata.clear()
            create.metadata.update(self.metadata)
        if self.extra is not None:
            create.extra_json = _json({**json.loads(create.extra_json or b"{}"), **self.extra})
        if self.warm_up:
            create.generate = False
        return create


# Options and the fields that they are.
_PLAIN = {
    "model": "model",
    "instructions": "instructions",
    "store": "store",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_output_tokens",
    "parallel_tool_calls": "parallel_tool_calls",
    "cache_key": "prompt_cache_key",
    "safety_identifier": "safety_identifier",
    "service_tier": "service_tier",
    "truncation": "truncation",
}


def _format(given: type | Mapping[str, Any]) -> settings_pb2.TextFormat:
    if isinstance(given, Mapping):
        return settings_pb2.TextFormat(json=_json(given))
    schema = settings_pb2.JsonSchemaFormat(name=name_of(given), schema=_json(schema_of(given)), strict=True)
    return settings_pb2.TextFormat(json_schema=schema)


def _choice(given: str | Mapping[str, Any]) -> tools_pb2.ToolChoice:
    if isinstance(given, Mapping):
        return tools_pb2.ToolChoice(json=_json(given))
    if given in ("auto", "none", "required"):
        return tools_pb2.ToolChoice(mode=given)
    return tools_pb2.ToolChoice(function=tools_pb2.FunctionChoice(name=given))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
