"""The vendors' APIs: each a translation to selectors and back, in a module of its own."""
