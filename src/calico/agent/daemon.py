"""The agent's process: its parts, wired together, from start to clean stop."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from calico import obs
from calico.agent.announcement import Announcement
from calico.agent.cutter import Cutter, KernelConnections
from calico.agent.heartbeat import Heartbeat
from calico.agent.keeper import Keeper
from calico.agent.loop import Event, Loop, Parts
from calico.agent.node import Introduction
from calico.agent.policy_log import PolicyLog
from calico.agent.statuses import StatusWriter
from calico.config import AgentSettings, BadSettings, load_agent_settings
from calico.datastore.client import Client
from calico.datastore.watcher import Ranges, Seen, Watch
from calico.model.ids import HostName
from calico.model.keys import Keys
from calico.model.world import (
    World,
    WorldBuilder,
    group_prefixes_and_keys,
    watched_keys,
    watched_prefixes,
)
from calico.obs import Metrics
from calico.reconcile.loop import Intervals, Pacer
from calico.reconcile.problem import Problem
from calico.system.arrivals import Arrivals
from calico.system.bird import Bird
from calico.system.dhcp import DhcpService
from calico.system.dns import DnsService
from calico.system.kernel import Have, Kernel
from calico.system.metadata import MetadataProxy
from calico.system.monitor import Monitor
from calico.system.service_manager import notify_ready

log = structlog.get_logger()

_PATIENCE = 5.0  # seconds for the last statuses to be written at the end
# What needs no restart.
_IN_PLACE = ("log_level", "log_json", "policy_log", "resync_interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """All parts of a running agent."""

    settings: AgentSettings
    loop: Loop
    watch: Watch
    writer: StatusWriter
    heartbeat: Heartbeat
    monitor: Monitor
    arrivals: Arrivals
    policy_log: PolicyLog
    metrics: Metrics
    client: Client

    def serve(self) -> None:
        """Run until told to stop; what is in the kernel then stays."""
        self._serve_metrics()
        log.info("agent starts", host=self.settings.host)
        for part in (
            self.watch,
            self.writer,
            self.heartbeat,
            self.monitor,
            self.arrivals,
            self.policy_log,
        ):
            part.start()
        try:
            self.loop.run()
        finally:
            self.heartbeat.stop()
            self.writer.stop(_PATIENCE)
            self.monitor.stop()
            self.arrivals.stop()
            self.policy_log.stop()
            self.watch.stop()
            self.client.close()
            log.info("agent ends, the data path stays")

    def once(self, patience: float) -> bool:
        """Make one pass and report it; return whether all is well.

        TimeoutError if the datastore is not there within `patience` seconds.
        """
        self.watch.start()
        self.writer.start()
        try:
            return self.loop.once(patience)
        finally:
            self.writer.stop(_PATIENCE)
            self.watch.stop()
            self.client.close()

    def preview(self, patience: float) -> list[str]:
        """Return what a pass would change; TimeoutError as for `once`."""
        self.watch.start()
        try:
            return self.loop.preview(patience)
        finally:
            self.watch.stop()
            self.client.close()

    def _serve_metrics(self) -> None:
        if self.settings.metrics is None:
            return
        try:
            obs.serve_metrics(self.metrics, self.settings.metrics)
        except (OSError, ValueError) as e:
            log.warning("no metrics", address=self.settings.metrics, reason=str(e))


def build(settings: AgentSettings, path: Path) -> Agent:
    """Wire an agent; nothing runs yet. NftError without libnftables.

    `path` is the file that the settings came from, to be read again on reload.
    """
    keys = Keys(settings.region)
    client = Client(settings.etcd)
    metrics = Metrics()
    writer = StatusWriter(client, keys, settings.host)
    pacer = Pacer(Intervals(resync=settings.resync_interval))
    introduction = Introduction(client, settings)
    dns = DnsService(settings.run_dir, settings.dns)
    policy_log = PolicyLog(metrics, settings.policy_log)
    # The watch and the loop know each other; the loop is told of changes only.
    hints: list[Loop] = []
    arrivals = Arrivals(lambda: hints[0].tell(Event.TOUCHED))
    watch = _watch(client, settings.host, keys, lambda: hints[0].tell(Event.DIRTY))
    parts = Parts(
        host=settings.host,
        keys=keys,
        world=_world(watch, settings, keys),
        keeper=Keeper(Kernel(), settings),
        cutter=Cutter(KernelConnections()),
        services=(*_services(settings, dns), introduction.apply),
        writer=writer,
        metrics=metrics,
        reload=lambda: _reload(path, settings, pacer, policy_log),
        ready=notify_ready,
        inform=policy_log.follow,
        rename=dns.apply,
        expect=arrivals.follow,
        arrived=arrivals.take,
    )
    hints.append(loop := Loop(parts, pacer))
    return Agent(
        settings=settings,
        loop=loop,
        watch=watch,
        writer=writer,
        heartbeat=_heartbeat(client, keys, settings),
        monitor=Monitor(lambda: loop.tell(Event.TOUCHED)),
        arrivals=arrivals,
        policy_log=policy_log,
        metrics=metrics,
        client=client,
    )


def _heartbeat(client: Client, keys: Keys, settings: AgentSettings) -> Heartbeat:
    return Heartbeat(
        client,
        keys.host_status(settings.host),
        interval=settings.heartbeat_interval,
        ttl=settings.heartbeat_ttl,
    )


def stop_on_signals(agent: Agent) -> None:
    """End on SIGTERM and SIGINT, read the settings again on SIGHUP."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.loop.tell(Event.STOP))
    signal.signal(signal.SIGHUP, lambda *_: agent.loop.tell(Event.RELOAD))


def _watch(
    client: Client, host: HostName, keys: Keys, notify: Callable[[], None]
) -> Watch:
    return Watch(
        client,
        Ranges(prefixes=watched_prefixes(host, keys), keys=watched_keys(keys)),
        notify,
        more=_more(host, keys),
        pictured=True,
    )


def _more(host: HostName, keys: Keys) -> Callable[[Seen], Ranges]:
    """Return what says which groups and names a host has to know of."""

    def more(seen: Seen) -> Ranges:
        prefixes, single = group_prefixes_and_keys(host, keys, seen)
        return Ranges(prefixes=prefixes, keys=single)

    return more


def _world(
    watch: Watch, settings: AgentSettings, keys: Keys
) -> Callable[[], World | None]:
    """Return what gives the last world that was seen whole; None until there is one.

    While something is being followed anew, perhaps for as long as etcd is away, the
    host is kept as it was.
    """
    builder = WorldBuilder(settings.host, keys)
    last: World | None = None

    def world() -> World | None:
        nonlocal last
        picture = watch.picture()
        if picture is not None:
            last = builder.build(picture.items, picture.changed)
        return last

    return world


def _services(
    settings: AgentSettings, dns: DnsService
) -> tuple[Callable[[World, Have], list[Problem]], ...]:
    """Return what makes the daemons follow: DHCP and RA, metadata, DNS, then BGP."""
    dhcp = DhcpService(settings.run_dir)
    proxy = MetadataProxy(settings.run_dir, settings.metadata)
    announcement = Announcement(Bird(settings.run_dir), settings)
    return (
        lambda world, _: dhcp.apply(world),
        lambda world, _: proxy.apply(world),
        lambda world, _: dns.apply(world),
        announcement.apply,
    )


def _reload(
    path: Path, settings: AgentSettings, pacer: Pacer, policy_log: PolicyLog
) -> None:
    """Take over what can change in place; say what needs a restart (P40)."""
    try:
        new = load_agent_settings(path)
    except BadSettings as e:
        log.warning("settings not reloaded", reason=str(e))
        return
    kept = {name: getattr(settings, name) for name in _IN_PLACE}
    if replace(new, **kept) != settings:
        log.warning("some changed settings need a restart, which disturbs no packet")
    obs.configure_logging(new.log_level, as_json=new.log_json)
    pacer.intervals = replace(pacer.intervals, resync=new.resync_interval)
    policy_log.reopen(new.policy_log)
    log.info("settings reloaded", **{name: getattr(new, name) for name in _IN_PLACE})
