"""The environments of a site: which of its hosts an invalidation targets."""

from typing import Literal, TypeAlias

Environment: TypeAlias = Literal["production", "preview"]
ENVIRONMENTS: tuple[Environment, ...] = ("production", "preview")
