"""What processes say to each other about terminals over the bus: output at its place, state, and what viewers want.

The bus may lose anything. A copy that misses bytes sees it by their place and asks again (`watch`), and it asks every
few seconds all the same.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from atelier.bus import Bus
from atelier.terminals.screen import Screen

ASK = "terminals"
PIECE = 32 * 1024
_PLACE = struct.Struct(">cQ")


def topic(terminal_id: str) -> str:
    """The bus topic of what a terminal shows."""
    return f"terminal:{terminal_id}"


async def send_output(bus: Bus, terminal_id: str, place: int, data: bytes) -> None:
    """Publish what was shown at a place."""
    for start in range(0, len(data), PIECE):
        await bus.publish(topic(terminal_id), _PLACE.pack(b"o", place + start) + data[start : start + PIECE])


async def send_state(bus: Bus, terminal_id: str, screen: Screen) -> None:
    """Publish size, people, the end, and from where on bytes are kept."""
    state = {**screen.state(), "start": screen.tape.start}
    await bus.publish(topic(terminal_id), b"s" + json.dumps(state).encode())


def read(message: bytes) -> tuple[int, bytes] | dict[str, Any]:
    """Return output with its place, or a state."""
    if message[:1] == b"s":
        state: dict[str, Any] = json.loads(message[1:])
        return state
    _, place = _PLACE.unpack_from(message)
    return place, message[_PLACE.size :]


async def ask(bus: Bus, terminal_id: str, do: str, **what: Any) -> None:
    """Ask the process that holds a terminal to do something."""
    if isinstance(data := what.get("data"), bytes):
        what["data"] = base64.b64encode(data).decode()
    await bus.publish(ASK, json.dumps({"terminal": terminal_id, "do": do, **what}).encode())


def asked(message: bytes) -> dict[str, Any]:
    """Return what `ask` sent."""
    found: dict[str, Any] = json.loads(message)
    if "data" in found:
        found["data"] = base64.b64decode(found["data"])
    return found
