"""What exists: identifiers, records, their etcd keys and JSON, and a host's world.

Pure: no I/O, no clock, no randomness. Imports nothing of the project but itself.
"""
