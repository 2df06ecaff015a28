"""What the semantics refuse: exceptions named for what went wrong, which callers turn into HTTP."""


class BadRequest(ValueError):
    """A request that must be answered with 400 and neither forwarded nor cached (RFC 9112 3.2).

    `reason` is a token out of a fixed set ("host-missing", "target-form", ...), fit for a log, a
    metric's label and the `detail` of Cache-Status.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TagLimitExceeded(Exception):
    """A response bears more tags, or longer ones, than the policy allows.

    Tags are never cut: a response that lost one of its tags would outlive a purge of it, so such
    a response is not stored at all.
    """

    def __init__(self, field: str, limit: str, allowed: int, actual: int) -> None:
        """`field`: the tag field's name; `limit`: the broken limit's name in `TagPolicy`."""
        super().__init__(f"{field} breaks the limit {limit} = {allowed}: {actual}")
        self.field = field
        self.limit = limit
        self.allowed = allowed
        self.actual = actual
