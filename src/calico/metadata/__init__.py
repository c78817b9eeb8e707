"""The metadata service's proxy: a process of its own on each host (docs/metadata.md).

It listens on each instance's interface, and asks the cloud's metadata backends in that
instance's name. May import what is below the agent, and asyncio; nothing imports it.
"""
