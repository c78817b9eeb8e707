"""The mechanism driver's name: what Neutron records with each binding it made."""

NAME = "calico"  # the entry point's
