"""What neutron.conf says for the whole cloud, told to the hosts.

One small key, so that a change costs one write and reaches every host at once. It is
compared in each round: what somebody else wrote, or an old backup of etcd says, is made
good.
"""

from oslo_log import log

from calico.datastore.store import Compare, Delete, Put, Store, Transaction
from calico.model.cloud_settings import DEFAULTS, CloudSettings, encode_cloud_settings
from calico.model.keys import Keys

LOG = log.getLogger(__name__)


def publish_cloud_settings(store: Store, keys: Keys, settings: CloudSettings) -> None:
    """Write the settings, or withdraw them where all is as it is by default."""
    key = keys.settings
    wanted = None if settings == DEFAULTS else encode_cloud_settings(settings)
    old = store.get(key)
    if (old.value if old else None) == wanted:
        return
    write = Delete(key=key) if wanted is None else Put(key=key, value=wanted)
    changed = store.transaction(
        Transaction(compares=(Compare.unchanged(key, old),), writes=(write,))
    )
    if changed.succeeded:
        LOG.info("Hosts are told of the cloud's settings: %s", settings)
