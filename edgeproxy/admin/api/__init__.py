"""The own API, version 1: its endpoints, what they take and answer, and its OpenAPI document."""
