"""What the host's services to its instances have in common.

Each is a process of its own without privileges, which is told of ports by a file and
SIGHUP, and knows an instance by the interface that it is heard on. May import what is
below the agent, and asyncio; the services import it.
"""
