"""Logs of security groups: this project's driver of Neutron's service plugin `log`.

The plugin announces itself once it is loaded, and the driver then says what it can
serve; without the plugin nothing happens. How a request is judged, a module of Neutron
registers as it is imported. What changes is journalled by the row that is written
(`journal.watch_logs`), so all that is left here is to wake the publisher.
"""

from collections.abc import Callable
from typing import Any

from neutron.services.logapi.common import sg_validate  # noqa: F401 - it registers
from neutron.services.logapi.drivers import base
from neutron_lib.api.definitions import portbindings
from neutron_lib.services.logapi import constants as log_const

from calico.server.driver_name import NAME
from calico.server.journal import Kind, Subject


class LogDriver(base.DriverBase):
    """Serves logs of security groups for ports that this project binds."""

    def __init__(self, wake: Callable[[Subject], None]) -> None:
        super().__init__(
            name=NAME,
            vif_types=[portbindings.VIF_TYPE_TAP],
            vnic_types=[portbindings.VNIC_NORMAL],
            supported_logging_types=[log_const.SECURITY_GROUP],
            requires_rpc=False,
        )
        self._wake = wake

    def create_log(self, _context: Any, log_obj: Any) -> None:
        """Have a new log published."""
        self._wake(Subject(Kind.LOG, log_obj.id))

    def update_log(self, _context: Any, log_obj: Any) -> None:
        """Have a log published, or withdrawn if it is disabled."""
        self._wake(Subject(Kind.LOG, log_obj.id))

    def delete_log(self, _context: Any, log_obj: Any) -> None:
        """Have a log withdrawn.

        Where it goes with its group or port, that has not been committed yet: then the
        elected worker withdraws it. Nothing is logged meanwhile, without the other.
        """
        self._wake(Subject(Kind.LOG, log_obj.id))
