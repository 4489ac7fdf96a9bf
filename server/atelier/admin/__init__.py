"""What admins do: people and switches."""

from atelier.admin.routes import router
from atelier.admin.service import (
    change_user,
    delete_user,
    list_users,
    packages,
    set_packages,
    set_switches,
    switches,
)

__all__ = [
    "change_user",
    "delete_user",
    "list_users",
    "packages",
    "router",
    "set_packages",
    "set_switches",
    "switches",
]
