"""The typed model of the whole configuration: loading, checking, describing. It starts nothing."""
