"""Many hosts on one machine: a whole cloud network in network namespaces.

Nothing of it touches the machine's own network but one port on loopback.
"""
