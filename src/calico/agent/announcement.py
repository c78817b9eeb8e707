"""What this host's BIRD is told: the sessions and filters of the world, or to go on.

An object that cannot be read says nothing about what it would have said. So where the
sessions are unknown, those that there are stay, and none is made by default: one slip
in the cloud's BGPConfiguration would else give every host the default AS and a mesh.
"""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from calico.agent.keeper import own_address
from calico.config import AgentSettings
from calico.model.world import World
from calico.plan.bird import BgpFacts, plan_bird, unreadable, without_sessions
from calico.reconcile.problem import Problem
from calico.system.bird import Bird
from calico.system.kernel import Have


class Announcement:
    """Keeps a host's BIRD as the world says."""

    def __init__(self, bird: Bird, settings: AgentSettings) -> None:
        self._bird = bird
        self._settings = settings
        self._facts: BgpFacts | None = None

    def apply(self, world: World, have: Have) -> list[Problem]:
        """Make BIRD follow; return why it does not."""
        self._facts = facts = kept(bgp_facts(self._settings, have), self._facts)
        unknown = unreadable(world)
        if not unknown:
            return self._bird.apply(plan_bird(world, facts))
        return [
            *(
                Problem("BGP", "follow", f"{one}; it stays as it is", lasting=True)
                for one in unknown
            ),
            *self._bird.keep(plan_bird(without_sessions(world), facts)),
        ]


def bgp_facts(settings: AgentSettings, have: Have) -> BgpFacts:
    """Return what BGP has to know of the host, as it is now."""
    address4, address6 = own_address(settings, have, 4), own_address(settings, have, 6)
    return BgpFacts(
        host=settings.host,
        address4=address4 if isinstance(address4, IPv4Address) else None,
        address6=address6 if isinstance(address6, IPv6Address) else None,
        uplinks=settings.uplinks,
        connected=tuple(i for name, i in have.addresses if name in settings.uplinks),
    )


def kept(now: BgpFacts, before: BgpFacts | None) -> BgpFacts:
    """Return the facts with the last known address of a family that has none now.

    An interface that is set up anew is without for a moment, and is not another host
    then: sessions wait for it, rather than end.
    """
    if before is None:
        return now
    gone = [v for v in (4, 6) if now.address(v) is None and before.address(v)]
    remembered = tuple(i for i in before.connected if i.version in gone)
    return replace(
        now,
        address4=now.address4 or before.address4,
        address6=now.address6 or before.address6,
        connected=(*(i for i in now.connected if i.version not in gone), *remembered),
    )
