"""What a session's programs may have installed: its manifests, held against the list that admins keep."""

from atelier.packages.allowed import AllowList, Entry, allow_list, read_entries, set_allow_list
from atelier.packages.manifests import MANIFESTS, Wanted, read_manifest
from atelier.packages.service import packages_of

__all__ = [
    "MANIFESTS",
    "AllowList",
    "Entry",
    "Wanted",
    "allow_list",
    "packages_of",
    "read_entries",
    "read_manifest",
    "set_allow_list",
]
