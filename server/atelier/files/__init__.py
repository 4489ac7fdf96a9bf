"""A session's files: the tree, what is in it, zip, search, templates."""

from atelier.files.archive import ZIP_BODY, unpack
from atelier.files.catalogue import Template, template, templates
from atelier.files.changes import Changes
from atelier.files.checkout import LeftOut
from atelier.files.imports import Fetched, fetch_git
from atelier.files.routes import router
from atelier.files.service import (
    FileEntry,
    Given,
    first_text,
    list_files,
    media_type_of,
    read_all,
    read_given,
    read_some,
    seed,
)
from atelier.files.store import MAP, Tree, allowed, change_tree, read_tree, tree_of, turn
from atelier.files.tree import Node
from atelier.files.undos import keep as keep_undo
from atelier.files.written import Written, write_back

__all__ = [
    "MAP",
    "ZIP_BODY",
    "Changes",
    "Fetched",
    "FileEntry",
    "Given",
    "LeftOut",
    "Node",
    "Template",
    "Tree",
    "Written",
    "allowed",
    "change_tree",
    "fetch_git",
    "first_text",
    "keep_undo",
    "list_files",
    "media_type_of",
    "read_all",
    "read_given",
    "read_some",
    "read_tree",
    "router",
    "seed",
    "template",
    "templates",
    "tree_of",
    "turn",
    "unpack",
    "write_back",
]
