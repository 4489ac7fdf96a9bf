"""Who is calling, and what they may do."""

from atelier.auth.access import (
    access_topic,
    announce_access,
    check,
    check_egress,
    has_egress,
    require,
    role_in,
)
from atelier.auth.callers import (
    COOKIE,
    Caller,
    CallerDep,
    OptionalCallerDep,
    clear_login_cookie,
    cookie_caller,
    find_caller,
    refuse_other_sites,
    set_login_cookie,
    socket_caller,
)
from atelier.auth.permissions import Action, Role, allows
from atelier.auth.rates import limiter_of, rate_limited
from atelier.auth.routes import router
from atelier.auth.schemas import Credentials, DisplayName, User
from atelier.auth.service import LoggedIn, create_guest

__all__ = [
    "COOKIE",
    "Action",
    "Caller",
    "CallerDep",
    "Credentials",
    "DisplayName",
    "LoggedIn",
    "OptionalCallerDep",
    "Role",
    "User",
    "access_topic",
    "allows",
    "announce_access",
    "check",
    "check_egress",
    "clear_login_cookie",
    "cookie_caller",
    "create_guest",
    "find_caller",
    "has_egress",
    "limiter_of",
    "rate_limited",
    "refuse_other_sites",
    "require",
    "role_in",
    "router",
    "set_login_cookie",
    "socket_caller",
]
