"""The loop over turns and functions, without its IO."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from .errors import LoopLimitError, TurnError
from .gen import create_pb2, items_pb2, tools_pb2
from .reasons import Reason
from .request import Input, Request, call_output
from .tools import Function, error_result
from .types import Limits, Result, Usage

#: A model that still calls functions after so many turns is most likely going in circles.
DEFAULT_MAX_TURNS = 32
# Of what the gateway takes in one message; the rest is for instructions and tools.
_SHARE_OF_RESULTS = 0.75

#: True lets a call be made; False or a text refuses it, and the model is told.
Approval: TypeAlias = "bool | str"


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that was answered."""

    name: str
    call_id: str
    #: JSON, as the model wrote it.
    arguments: str
    #: What the model is told.
    output: str
    #: What went wrong, if anything.
    error: BaseException | None
    seconds: float


class LoopOptions(TypedDict, total=False):
    """Limits and hooks of a tool loop. A limit that is reached raises LoopLimitError."""

    #: Turns; default 32.
    max_turns: int
    #: Seconds from the first start on.
    max_time: float
    #: Tokens of all turns together.
    max_tokens: int
    #: Of all turns together, in the unit of `price`.
    max_cost: float
    price: Callable[[Usage], float]
    #: Seconds that one call may take; then its result is an error. A plain function goes on in its thread.
    tool_timeout: float
    #: Calls that run at the same time; default: all of a turn.
    max_concurrency: int
    #: Asked before each call.
    approve: Callable[[items_pb2.FunctionCall], Approval | Awaitable[Approval]]
    #: Told each call that was answered.
    on_call: Callable[[ToolCall], object]


_NOTHING = Result(lane_id="", turn_id="", outcome="", responses=(), items=())


class ToolLoop:
    """What a tool loop knows between its turns."""

    def __init__(self, request: Request, functions: Sequence[Function], options: LoopOptions) -> None:
        self._functions = {one.name: one for one in functions}
        self.options = options
        self._max_turns = options.get("max_turns", DEFAULT_MAX_TURNS)
        max_time = options.get("max_time")
        self.deadline = None if max_time is None else time.monotonic() + max_time
        self._turns = 0
        self._usage = Usage()
        #: What the last turn came to.
        self.last: Result | None = None
        self.answers: Sequence[items_pb2.InputItem] = ()
        own: Sequence[tools_pb2.Tool | Mapping[str, Any]] = ()
        if request.tools is not None:
            own = request.tools
        elif request.create is not None:
            own = request.create.tools
        specs: list[tools_pb2.Tool | Mapping[str, Any]] = [*own, *(one.spec() for one in functions)]
        self.request = dataclasses.replace(request, tools=specs)

    def total(self, result: Result) -> Result:
        """The result with the usage of the turns before it."""
        return dataclasses.replace(result, earlier_usage=self._usage)

    def finished(self, result: Result) -> tuple[Result, Sequence[items_pb2.FunctionCall]]:
        """The result of a turn with the usage so far, and the calls to make: none if the turn did not complete."""
        total = self.total(result)
        calls = result.function_calls if result.outcome == "completed" else []
        self._turns += 1
        self.last = total
        if calls:
            self._check(total, calls)
        self._usage = total.usage
        return total, calls

    def out_of_time(self, result: Result | None, calls: Sequence[items_pb2.FunctionCall] = ()) -> LoopLimitError:
        said = "the tool loop had its time"
        return _limit("DEADLINE_EXCEEDED", Reason.LOOP_TIME_LIMIT, said, result or _NOTHING, calls)

    def time_left(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def _check(self, total: Result, calls: Sequence[items_pb2.FunctionCall]) -> None:
        usage, options = total.usage, self.options
        if self._turns >= self._max_turns:
            said = f"the model still calls functions after {self._turns} turns"
            raise _limit("CANCELLED", Reason.LOOP_TURN_LIMIT, said, total, calls)
        max_tokens, max_cost, price = options.get("max_tokens"), options.get("max_cost"), options.get("price")
        if max_tokens is not None and usage.total_tokens >= max_tokens:
            said = f"the model still calls functions after {usage.total_tokens} tokens"
            raise _limit("RESOURCE_EXHAUSTED", Reason.LOOP_TOKEN_LIMIT, said, total, calls)
        if max_cost is not None and price is not None and price(usage) >= max_cost:
            said = f"the model still calls functions after a cost of {price(usage):g}"
            raise _limit("RESOURCE_EXHAUSTED", Reason.LOOP_COST_LIMIT, said, total, calls)
        left = self.time_left()
        if left is not None and left <= 0:
            raise self.out_of_time(total, calls)

    def invoke(self, call: items_pb2.FunctionCall) -> Any:
        """Calls the function. Raises whatever goes wrong."""
        found = self._functions.get(call.name)
        if found is None:
            raise LookupError(f"there is no function {call.name}")
        arguments = json.loads(call.arguments)
        if not isinstance(arguments, dict):
            raise ValueError("the arguments are no object")
        return found.call(arguments)

    def bounded(self, output: str, calls: int, limits: Limits) -> str:
        """What the gateway would not take becomes an error for the model."""
        takes = min((size for size in (limits.max_message_bytes, limits.max_frame_bytes) if size), default=0)
        return _bounded(output, int(takes * _SHARE_OF_RESULTS / calls))

    def advance(self, calls: Sequence[items_pb2.FunctionCall], outputs: Sequence[str]) -> None:
        """Makes the results the next turn's input."""
        self.answers = [call_output(call.call_id, output) for call, output in zip(calls, outputs, strict=True)]
        create = None
        if self.request.create is not None:
            create = create_pb2.CreateBody()
            create.CopyFrom(self.request.create)
            # A forced tool choice would force the call again and again.
            for name in ("tool_choice", "previous_response_id"):
                create.ClearField(name)
        self.request = dataclasses.replace(
            self.request,
            input=list(self.answers),
            create=create,
            tool_choice=None,
            turn_id=None,
            previous_response_id=None,
            new_conversation=False,
            full_history=False,
        )


def may_help(error: TurnError) -> bool:
    """Whether the same turn may do better a little later, on the same session."""
    if error.inferred or error.reason == Reason.DRAINING:
        return False
    return error.retry_after is not None or error.code == "UNAVAILABLE" or error.reason == Reason.UPSTREAM_RATE_LIMITED


def with_format(request: Request | Input, kind: type) -> Request:
    return dataclasses.replace(as_request(request), text_format=kind)


def as_request(request: Request | Input) -> Request:
    return request if isinstance(request, Request) else Request(input=request)


def refusal_of(approval: Approval) -> str | None:
    """What the model is told of a call that is not allowed; None: it is."""
    if approval is True:
        return None
    return "the call was denied" if approval is False else f"the call was denied: {approval}"


def _limit(
    code: str, reason: Reason, message: str, result: Result, calls: Sequence[items_pb2.FunctionCall]
) -> LoopLimitError:
    if calls:
        message += f"; {', '.join(call.name for call in calls)}: answered with an error by the lane's next turn"
    return LoopLimitError(code, reason, message, result=result, open_calls=calls)


def _bounded(output: str, most: int) -> str:
    if not most or len(output) * 6 <= most:
        return output
    size = len(json.dumps(output, ensure_ascii=False).encode())
    return output if size <= most else error_result(f"the result of {size} bytes is more than the gateway takes ({most})")
