"""A request's way: read, look up, decide, serve, fetch."""
