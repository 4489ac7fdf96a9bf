"""Who may do what: the only place that decides.

| role    | read | comment | run | edit | share | manage | egress |
|---------|------|---------|-----|------|-------|--------|--------|
| view    | yes  |         |     |      |       |        |        |
| comment | yes  | yes     |     |      |       |        |        |
| run     | yes  | yes     | yes |      |       |        |        |
| edit    | yes  | yes     | yes | yes  |       |        |        |
| owner   | yes  | yes     | yes | yes  | yes   | yes    | yes    |

Egress has two conditions more (`access.check_egress`): the operator allows it at all, and who grants it has an account.
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
    EGRESS = "egress"
    """Let the session's programs reach the internet, or no longer."""


_VIEW = frozenset({Action.READ})
_COMMENT = _VIEW | {Action.COMMENT}
_RUN = _COMMENT | {Action.RUN}
_EDIT = _RUN | {Action.EDIT}
_ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEW: _VIEW,
    Role.COMMENT: _COMMENT,
    Role.RUN: _RUN,
    Role.EDIT: _EDIT,
    Role.OWNER: _EDIT | {Action.SHARE, Action.MANAGE, Action.EGRESS},
}


def allows(role: Role, action: Action) -> bool:
    """Say whether `role` may do `action`."""
    return action in _ALLOWED[role]
