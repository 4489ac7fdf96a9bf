"""Who may do what: the only place that decides.

| role    | read | comment | run | edit | share | manage |
|---------|------|---------|-----|------|-------|--------|
| view    | yes  |         |     |      |       |        |
| comment | yes  | yes     |     |      |       |        |
| run     | yes  | yes     | yes |      |       |        |
| edit    | yes  | yes     | yes | yes  |       |        |
| owner   | yes  | yes     | yes | yes  | yes   | yes    |
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """A member's role in one session."""

    OWNER = "owner"
    EDIT = "edit"
    RUN = "run"
    COMMENT = "comment"
    VIEW = "view"


class Action(StrEnum):
    """What a route, a socket message or a tool call wants to do in a session."""

    READ = "read"
    COMMENT = "comment"
    RUN = "run"
    EDIT = "edit"
    SHARE = "share"
    """Make and revoke links, change roles, remove members."""
    MANAGE = "manage"
    """Rename, archive, delete the session."""


_VIEW = frozenset({Action.READ})
_COMMENT = _VIEW | {Action.COMMENT}
_RUN = _COMMENT | {Action.RUN}
_EDIT = _RUN | {Action.EDIT}
_ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEW: _VIEW,
    Role.COMMENT: _COMMENT,
    Role.RUN: _RUN,
    Role.EDIT: _EDIT,
    Role.OWNER: _EDIT | {Action.SHARE, Action.MANAGE},
}


def allows(role: Role, action: Action) -> bool:
    """Say whether `role` may do `action`."""
    return action in _ALLOWED[role]
