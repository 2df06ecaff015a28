"""A caching edge server: tag-aware, stale while it revalidates, purged exactly."""
