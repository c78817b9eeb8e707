"""etcd's v3 protocol: messages, calls, connections. Only `datastore` imports it."""
