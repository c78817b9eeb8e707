"""Where objects of Neutron's are stored that have a key each, and what is there."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from calico.model.codec import encode_subnet
from calico.model.ids import AddressGroupId, GroupId, LogId, SubnetId
from calico.model.keys import Keys
from calico.model.logs import encode_log
from calico.model.policy_codec import encode_address_group, encode_policy
from calico.server import inventory
from calico.server.journal import Kind, Subject
from calico.server.publish import Form

_T = TypeVar("_T")


def form_of(subject: Subject, keys: Keys) -> Form:
    """Return the form of an object, which is read from the database when asked for.

    Asking raises Invalid for what cannot be expressed.
    """
    name = subject.id
    match subject.kind:
        case Kind.SUBNET:
            key = keys.subnet(SubnetId(name))
            return _form(key, partial(inventory.subnet, name), encode_subnet)
        case Kind.GROUP:
            key = keys.policy(GroupId(name))
            return _form(
                key,
                partial(inventory.policy, name),
                lambda policy, old: encode_policy(policy, keys, old),
            )
        case Kind.ADDRESS_GROUP:
            key = keys.address_group(AddressGroupId(name))
            return _form(
                key,
                partial(inventory.address_group, name),
                lambda group, old: encode_address_group(group, keys, old),
            )
        case Kind.LOG:
            key = keys.log(LogId(name))
            return _form(key, partial(inventory.network_log, name), encode_log)
        case _:
            raise AssertionError(f"{subject.kind} is not published by itself")


def _form(
    key: str,
    read: Callable[[], _T | None],
    encode: Callable[[_T, bytes | None], bytes],
) -> Form:
    def wanted(old: bytes | None) -> bytes | None:
        found = read()
        return None if found is None else encode(found, old)

    return Form(key, wanted)
