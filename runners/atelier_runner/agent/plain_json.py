"""JSON without the package `json`, whose imports cost more than an interpreter's own start: what is written in C does all.

Standard library only, like the agent, beside which it lies. Where the C part is missing the package is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner
except ImportError:
    import json

    def loads(data: bytes) -> Any:
        return json.loads(data)

    def dumps(value: object) -> bytes:
        return json.dumps(value).encode()
else:

    class Plain:
        """What the scanner asks its decoder for: everything as it is by default."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float
        memo: dict = {}  # noqa: RUF012 - emptied by the scanner after each use

    scan = make_scanner(Plain)  # type: ignore[arg-type]
    encoder = make_encoder({}, None, encode_basestring_ascii, None, ": ", ", ", False, False, True)  # type: ignore[arg-type]

    def loads(data: bytes) -> Any:
        """Read one value that the host has written."""
        return scan(data.decode(), 0)[0]

    def dumps(value: object) -> bytes:
        """Write what the agent says: tables of texts, numbers, lists."""
        return "".join(encoder(value, 0)).encode()
