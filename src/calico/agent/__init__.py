"""The process on each host: sees the world, plans, and makes the host follow.

One thread owns the kernel; others only put hints into its queue, or talk to the
datastore. May import everything below, and nothing of OpenStack.
"""
