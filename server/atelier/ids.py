"""Identifiers and secrets: random, URL-safe, with a prefix that says what they name."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

# A document's id inside its session; the browser makes ids too (offline), so the shape is checked, not the origin.
DOCUMENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# The session's own document: file tree (and later comments).
TREE = "tree"


def new_id(prefix: str) -> str:
    """Return `prefix_` and 20 characters of lower-case base32 (100 random bits)."""
    return f"{prefix}_{base64.b32encode(secrets.token_bytes(13)).decode().lower()[:20]}"


def new_secret() -> str:
    """Return a bearer secret: 43 URL-safe characters, 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return what is stored in place of a secret: SHA-256 in hex (the secret itself has full entropy)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def document_key(session_id: str, document_id: str) -> str:
    """Return the log's key of one document: unambiguous, since neither part may hold a colon."""
    return f"{session_id}:{document_id}"


def parts_of_key(key: str) -> tuple[str, str]:
    """Return the session and the document that `document_key` was made of."""
    session_id, _, document_id = key.partition(":")
    return session_id, document_id
