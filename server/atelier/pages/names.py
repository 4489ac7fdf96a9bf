"""Friendly names for guests: "Curious Otter"."""

from __future__ import annotations

import secrets

_FIRST = ("Brave", "Bright", "Calm", "Cheerful", "Clever", "Curious", "Gentle", "Happy", "Kind", "Lively", "Lucky", "Merry",
          "Nimble", "Patient", "Quick", "Quiet", "Sunny", "Swift", "Warm", "Witty")  # fmt: skip
_SECOND = ("Badger", "Beaver", "Crane", "Dolphin", "Falcon", "Finch", "Fox", "Heron", "Ibex", "Lynx", "Marten", "Otter",
           "Owl", "Panda", "Puffin", "Raven", "Robin", "Seal", "Swallow", "Wren")  # fmt: skip


def friendly_name() -> str:
    """Return a name to start from."""
    return f"{secrets.choice(_FIRST)} {secrets.choice(_SECOND)}"
