"""Calico for OpenStack: pure layer 3 networking for Neutron."""
