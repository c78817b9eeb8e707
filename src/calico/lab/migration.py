"""Live migration as Nova does it: its calls to Neutron, its taps, in its order.

The target's tap is there before the guest; the guest is on one host at a time; Neutron
hears of the move after it, and the source is taken away last. Nova's facts are those of
its libvirt driver: `pre_live_migration` makes the target's binding and tap, the end of
the copy activates it, `post_live_migration` unplugs the source.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from calico.lab import keystone
from calico.lab.flow import Flow, Loss
from calico.lab.instances import Instance, Instances, asking
from calico.lab.namespaces import LabFailed
from calico.lab.store import Store
from calico.model.ids import HostName
from calico.model.keys import Keys

_TIMEOUT = 30.0
_POLL = 0.02
_SETTLE = 500  # packets of a measured flow before and after


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A migration as asked for; see `Lab.migrate_instance`."""

    name: str
    to: str
    warm: bool = True
    announced: bool = True
    measure_from: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What was done, and how many seconds after the beginning."""

    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a migration was: its steps, and what a flow lost by it."""

    name: str
    source: str
    target: str
    steps: tuple[Step, ...]
    loss: Loss | None = None


@dataclass(slots=True)
class _Diary:
    began: float = field(default_factory=time.monotonic)
    steps: list[Step] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.steps.append(Step(round(time.monotonic() - self.began, 3), what))


@dataclass(frozen=True, slots=True)
class Migrations:
    """Moves the instances of a lab; `store` is where hosts say what they prepared."""

    instances: Instances
    store: Store

    def migrate(self, move: Move) -> Report:
        """Move an instance; LabFailed, with the instance where it was, if it fails."""
        instance = self.instances.find(move.name)
        if instance.host == move.to:
            raise LabFailed(f"{move.name} runs on {move.to} already")
        diary = _Diary()
        with asking(), self._flow(move, instance) as flow:
            if move.warm:
                self._warm(move, instance, diary, flow)
            else:
                self._cold(move, instance, diary)
            if flow is not None:
                _await_packets(flow, _SETTLE)
        return Report(
            name=move.name,
            source=instance.host,
            target=move.to,
            steps=tuple(diary.steps),
            loss=flow.loss if flow is not None else None,
        )

    def _warm(
        self, move: Move, instance: Instance, diary: _Diary, flow: Flow | None
    ) -> None:
        nova, path = self._nova(), f"/ports/{instance.port_id}/bindings"
        machine = self.instances.machine(instance.name)
        binding = _call(nova.post, path, {"binding": {"host": move.to}})["binding"]
        diary.note(f"bound to {move.to} as well, inactive")
        try:
            tap = self.instances.tap_of(instance, binding["vif_details"])
            self.instances.plug(instance, move.to, tap)
            diary.note(f"tap on {move.to}")
            self._await_prepared(instance, move.to)
            diary.note(f"{move.to} is prepared")
        except BaseException:
            _call(nova.delete, f"{path}/{move.to}")
            machine.unplug(move.to)
            raise
        machine.run_on(move.to, instance.host)
        if move.announced:
            machine.announce(move.to, instance.mac)
        diary.note(f"runs on {move.to}")
        if flow is not None and move.announced:
            # So that what is measured is the guest's own word, not the API's.
            _await_packets(flow, 1)
            diary.note(f"is reached on {move.to}")
        _call(nova.put, f"{path}/{move.to}/activate")
        diary.note("binding activated")
        self._arrive(move, instance, diary)
        machine.unplug(instance.host)
        _call(nova.delete, f"{path}/{instance.host}")
        diary.note(f"tap and binding on {instance.host} deleted")

    def _cold(self, move: Move, instance: Instance, diary: _Diary) -> None:
        machine = self.instances.machine(instance.name)
        machine.unplug(instance.host)
        diary.note(f"lost with {instance.host}")
        body = {"port": {"binding:host_id": move.to}}
        port = _call(self._nova().put, f"/ports/{instance.port_id}", body)["port"]
        diary.note(f"bound to {move.to}")
        tap = self.instances.tap_of(instance, port["binding:vif_details"])
        self.instances.plug(instance, move.to, tap)
        machine.run_on(move.to)
        diary.note(f"runs on {move.to}")
        self._arrive(move, instance, diary)

    def _arrive(self, move: Move, instance: Instance, diary: _Diary) -> None:
        moved = replace(instance, host=move.to)
        self.instances.save(moved)
        self.instances.await_active(moved)
        diary.note("port is active")

    def _nova(self) -> Any:
        return self.instances.connect(keystone.SERVICE_PROJECT).network

    def _await_prepared(self, instance: Instance, host: str) -> None:
        """Wait until the host says that nothing but the guest is missing."""
        prefix = Keys().port_statuses(HostName(host))

        def prepared() -> bool:
            found = self.store.get_prefix(prefix).items()
            return any(
                key.endswith(instance.port_id) and b"prepared" in value
                for key, value in found
            )

        _await(prepared, f"{host} does not prepare {instance.name}")

    @contextmanager
    def _flow(self, move: Move, instance: Instance) -> Iterator[Flow | None]:
        measured: AbstractContextManager[Flow | None] = nullcontext()
        if move.measure_from is not None:
            sender = self.instances.find(move.measure_from)
            measured = Flow(
                source=sender.netns,
                destination=instance.netns,
                address=instance.addresses[0],
            )
        with measured as flow:
            if flow is not None:
                _await_packets(flow, _SETTLE)
            yield flow


def _await_packets(flow: Flow, count: int) -> None:
    enough = flow.received + count
    _await(
        lambda: flow.received >= enough,
        f"of a flow to {flow.address} nothing comes any more: do the groups allow it?",
    )


def _await(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise LabFailed(failure)
        time.sleep(_POLL)


def _call(method: Callable[..., Any], path: str, body: Any = None) -> Any:
    """Make a call that the client has no function for; its errors are raised."""
    from openstack.exceptions import (  # noqa: PLC0415 - loads slowly
        raise_from_response,
    )

    reply = method(path, json=body) if body is not None else method(path)
    raise_from_response(reply)
    return reply.json() if reply.content else {}
