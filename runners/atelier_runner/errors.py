"""Every error that the runner raises.

RunnerError
├── SandboxUnavailable   programs cannot run here (now); `hint` says how to mend it
├── LanguageUnknown      no such language, or its toolchain is missing
├── SpecInvalid          what was asked for is refused by name
├── EnvironmentFailed    packages could not be installed; the detail says why
├── RunUnknown           no run has this id
├── EventsGone           events are asked for that are not kept any more
├── ReaderReplaced       somebody else reads a run's events now
└── ServiceRefused       the service, not its sandboxes, refuses a request; `code` and `status` say why
"""

from __future__ import annotations


class RunnerError(Exception):
    """The root. `detail` says what was expected and what came; `hint` the way out."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class SandboxUnavailable(RunnerError):
    """No sandbox can be started."""


class LanguageUnknown(RunnerError):
    """The language is not in the catalogue, or its toolchain is not on this machine."""


class SpecInvalid(RunnerError):
    """A path, an entry or a limit that cannot be honoured; `code` names which."""

    def __init__(self, code: str, detail: str, *, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.code = code


class EnvironmentFailed(RunnerError):
    """Packages could not be installed. What the tool said about it has been told meanwhile."""


class RunUnknown(RunnerError):
    """No run has this id, or its events were already taken."""


class EventsGone(RunnerError):
    """They were confirmed and dropped, or have not come yet."""


class ReaderReplaced(RunnerError):
    """A run has one reader at a time, the newest."""


class ServiceRefused(RunnerError):
    """A request is refused before anything is run; `retry_after` is in seconds."""

    def __init__(
        self, status: int, code: str, detail: str, *, hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(detail, hint=hint)
        self.status = status
        self.code = code
        self.retry_after = retry_after
