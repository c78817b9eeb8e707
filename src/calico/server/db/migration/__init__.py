"""The alembic branch `calico-openstack`, which `neutron-db-manage` finds and runs."""
