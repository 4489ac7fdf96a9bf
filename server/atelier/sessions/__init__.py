"""Sessions, their members and their share links."""

from atelier.sessions.members import join_link, preview_link
from atelier.sessions.purge import forget, purge, purge_regularly
from atelier.sessions.routes import router
from atelier.sessions.schemas import LinkPreview, Session
from atelier.sessions.service import (
    change_session,
    create_from_files,
    create_session,
    delete_session,
    duplicate_session,
    get_session,
    list_sessions,
    restore_session,
)

__all__ = [
    "LinkPreview",
    "Session",
    "change_session",
    "create_from_files",
    "create_session",
    "delete_session",
    "duplicate_session",
    "forget",
    "get_session",
    "join_link",
    "list_sessions",
    "preview_link",
    "purge",
    "purge_regularly",
    "restore_session",
    "router",
]
