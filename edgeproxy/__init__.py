"""A caching edge server: tag-aware, stale while it revalidates, purged exactly."""

from importlib.metadata import version

__version__ = version("edgeproxy")
