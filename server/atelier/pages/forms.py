"""Forms as browsers send them: read with a limit, refused when another site sends them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from pydantic import TypeAdapter, ValidationError

from atelier.auth import DisplayName, refuse_other_sites
from atelier.deps import ServicesDep
from atelier.errors import Invalid, TooLarge

_MOST_BYTES = 64 * 1024
_NAME = TypeAdapter(DisplayName)


async def read_form(request: Request, services: ServicesDep) -> dict[str, str]:
    """Return a form's text fields.

    Raises:
        Forbidden: `cross_site`.
        TooLarge: `form_too_large`.
    """
    refuse_other_sites(request, services.public_url)
    if int(request.headers.get("content-length", "0") or 0) > _MOST_BYTES:
        raise TooLarge("form_too_large", "A form has at most 64 KiB.", next_step="Shorten what you typed.")
    async with request.form(max_fields=20, max_files=0) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


FormDep = Annotated[dict[str, str], Depends(read_form)]


def display_name(text: str) -> str:
    """Return a name that people can have here.

    Raises:
        Invalid: `name_invalid`.
    """
    try:
        return _NAME.validate_python(text)
    except ValidationError:
        raise Invalid(
            "name_invalid", "A name has 1 to 40 characters.", next_step="Choose another one."
        ) from None
