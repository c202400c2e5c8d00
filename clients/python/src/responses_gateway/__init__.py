"""Client of responses-gateway.

Five nouns: a Client holds the connection, a Session is one stream with its own upstream connection, a Lane is one line
of conversation, a Turn is one response and everything until its end, an Event is one thing that happened. The names
here block; `responses_gateway.aio` has the same for asyncio.
"""

from . import gen
from .errors import (
    GatewayError,
    Replay,
    SessionError,
    TurnBusyError,
    TurnError,
    TurnLimitError,
)
from .options import ClientOptions, SessionOptions
from .sync import Client, Lane, Session, Turn
from .tools import Function, function
from .types import (
    Event,
    GoAway,
    Input,
    Item,
    Limits,
    Outcome,
    Request,
    Result,
    Stats,
    Usage,
    call_output,
    json_item,
    message,
)

__all__ = [
    "Client",
    "ClientOptions",
    "Event",
    "Function",
    "GatewayError",
    "GoAway",
    "Input",
    "Item",
    "Lane",
    "Limits",
    "Outcome",
    "Replay",
    "Request",
    "Result",
    "Session",
    "SessionError",
    "SessionOptions",
    "Stats",
    "Turn",
    "TurnBusyError",
    "TurnError",
    "TurnLimitError",
    "Usage",
    "call_output",
    "function",
    "gen",
    "json_item",
    "message",
]
