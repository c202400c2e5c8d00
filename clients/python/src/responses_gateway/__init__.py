"""Client of responses-gateway.

Five nouns: a Client holds the connection, a Session is one stream with its own upstream connection, a Lane is one line
of conversation, a Turn is one response and everything until its end, an Event is one thing that happened. The names
here block; `responses_gateway.aio` has the same for asyncio.
"""

from . import gen
from .errors import (
    GatewayError,
    LoopLimitError,
    Replay,
    SessionError,
    TurnBusyError,
    TurnError,
    TurnLimitError,
    WaitTimeoutError,
)
from .loop import LoopOptions, ToolCall
from .options import Budget, ClientOptions, ConnectOptions, SessionOptions
from .reasons import Reason
from .request import Input, Item, Part, Request, call_output, file, image, json_item, message
from .sync import Client, Lane, Responses, ResponseStream, Session, Turn
from .tools import Function, function
from .types import Event, GoAway, Limits, Outcome, Parsed, Result, Stats, Usage

__all__ = [
    "Budget",
    "Client",
    "ClientOptions",
    "ConnectOptions",
    "Event",
    "Function",
    "GatewayError",
    "GoAway",
    "Input",
    "Item",
    "Lane",
    "Limits",
    "LoopLimitError",
    "LoopOptions",
    "Outcome",
    "Parsed",
    "Part",
    "Reason",
    "Replay",
    "Request",
    "ResponseStream",
    "Responses",
    "Result",
    "Session",
    "SessionError",
    "SessionOptions",
    "Stats",
    "ToolCall",
    "Turn",
    "TurnBusyError",
    "TurnError",
    "TurnLimitError",
    "Usage",
    "WaitTimeoutError",
    "call_output",
    "file",
    "function",
    "gen",
    "image",
    "json_item",
    "message",
]
