"""What the Neutron side and the hosts share: a versioned key-value store.

May import `calico.config` and `calico.model`, and is the only package that speaks to
etcd. `store` says what a store is; `client` and `memory` are two; `watcher` keeps a
copy of some ranges; `election` elects one worker of many.
"""
