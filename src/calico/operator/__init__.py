"""Operators' policies: from files into the datastore, and back to be looked at.

Everything is checked before anything is written. May import `datastore`, `policy` and
`model`.
"""
