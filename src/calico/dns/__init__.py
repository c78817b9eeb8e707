"""The DNS of a host's instances: a process of its own on each host (docs/dns.md).

It answers each instance with the names of that instance's project, and asks the cloud's
resolvers for all others. May import what is below the agent, `calico.service`, asyncio
and dnspython; nothing imports it.
"""
