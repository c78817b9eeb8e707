"""Revisions of the project's own tables, and the environment that they run in."""
