"""Probes: real packets sent and seen, one kind a module. Imports inside.py only.

Each can fail: the tests show every probe a broken network and expect it to say so.
"""
