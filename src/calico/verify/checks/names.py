"""S19: an instance's host knows the names of its project's ports, and no others."""

from dataclasses import dataclass
from functools import partial

import dns.exception
import dns.message
import dns.query
import dns.rcode

from calico.verify.cloud import Site
from calico.verify.parallel import eventually
from calico.verify.result import Tally
from calico.verify.stage import Stage

_PATIENCE = 2.0  # seconds for an answer
_SILENCE = 0.5  # seconds for none
_SETTLE = 5.0  # seconds for a name to reach a host
_TYPES = {4: "A", 6: "AAAA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Who asks which `servers`, one of each IP version, for a name that two have.

    `named` is of the asker's project. `other`'s subnet has DNS servers, and its host's
    address in it is `closed`.
    """

    name: str
    asker: Site
    servers: tuple[str, str]
    named: Site
    other: Site
    closed: str


def give(stage: Stage, *keys: str) -> str:
    """Give instances one name, each in its own project; return it, whole.

    Empty where the cloud has no domain for names.
    """
    label, given = f"{stage.prefix}-twin", ""
    for key in keys:
        site = stage.sites[key]
        api = stage.cloud.api(stage.net_of(site).plan.project).network
        port = api.update_port(site.port, dns_name=label)
        given = next((one["fqdn"] for one in port.dns_assignment or ()), "")
    return given.rstrip(".") if given.startswith(label) else ""


def judge(tally: Tally, case: Case) -> None:
    """Judge what the asker is told of the name, and of its address."""
    for version, server in zip((4, 6), case.servers, strict=True):
        address = case.named.address(version)
        for question, rdtype, wanted in (
            (case.name, _TYPES[version], str(address)),
            (address.reverse_pointer, "PTR", f"{case.name}."),
        ):
            wrong = _settled(case.asker, (question, rdtype, server), wanted)
            tally.case(f"{case.asker.short}: DNS over IPv{version}: {rdtype}", wrong)
    absent = _settled(case.asker, (f"no-{case.name}", "A", case.servers[0]), "NXDOMAIN")
    tally.case(f"{case.asker.short}: a name that nobody has", absent)
    asked = partial(_ask, case.name, "A", case.closed, _SILENCE)
    found = case.other.place.inside(asked)
    wrong = None if found == "silence" else f"{found}, not silence"
    tally.case(f"{case.other.short}: its host is silent, as it was told others", wrong)


def _settled(site: Site, question: tuple[str, str, str], wanted: str) -> str | None:
    """Ask until the answer is the one wanted; return what was instead, or None."""
    found: list[str] = []

    def right() -> bool:
        found[:] = [site.place.inside(partial(_ask, *question, _PATIENCE))]
        return found == [wanted]

    eventually(right, _SETTLE)
    return None if found == [wanted] else f"{found[0]}, not {wanted}"


def _ask(name: str, rdtype: str, server: str, patience: float) -> str:
    """Return the values that a server tells, or what it tells instead."""
    query = dns.message.make_query(name, rdtype)
    try:
        reply = dns.query.udp(query, server, timeout=patience)
    except dns.exception.Timeout:
        return "silence"
    except (OSError, dns.exception.DNSException) as e:
        return repr(e)
    values = sorted(str(one) for rrset in reply.answer for one in rrset)
    return " ".join(values) or dns.rcode.to_text(reply.rcode())
