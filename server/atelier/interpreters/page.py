"""A rich value that is a piece of HTML, as a page: readable by itself, and it says how high it is.

Whoever shows it in a frame cannot look inside, since it has no origin; so it tells its height in a message, which is
as trustworthy as the value itself and believed no further than a frame's size.
"""

from __future__ import annotations

_WHOLE = (b"<!doctype", b"<html")
_BEFORE = b"""<!doctype html><meta charset="utf-8"><style>
:root { color-scheme: light }
body { margin: 0; padding: 8px; font: 13px/1.5 system-ui, sans-serif; color: #1b1e25; background: #fff }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: 3px 10px; text-align: right; border: 0; border-bottom: 1px solid #dcdfe5; white-space: nowrap }
thead th { border-bottom: 1px solid #9aa2b1 }
</style>
"""
_AFTER = b"""
<script>
const tell = () => parent.postMessage({ atelierHeight: Math.ceil(document.documentElement.getBoundingClientRect().height) }, "*");
new ResizeObserver(tell).observe(document.documentElement);
</script>
"""


def whole(content: bytes) -> bytes:
    """Return a page for what may be a part of one."""
    if content[:200].lstrip().lower().startswith(_WHOLE):
        return content
    return _BEFORE + content + _AFTER
