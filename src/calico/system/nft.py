"""nftables through libnftables, in this process: one atomic transaction a change.

Ours are the tables named `calico` of the families in `plan.ruleset`, whole. A change
costs its own elements; only a resync reads the tables, and only a table that is not
what it should be is replaced, in the transaction that fills it again (P51).
"""

import ctypes
import json
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calico.plan.antispoof import Element
from calico.plan.ruleset import (
    TABLE,
    TABLES,
    Set,
    Table,
    describe_chain,
    describe_rule,
    describe_set,
    render,
    skeleton,
)
from calico.reconcile.diff import Diff

_LIBRARY = "libnftables.so.1"
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON (nftables/libnftables.h)
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEW_GENERATION, _GET_GENERATION = _SUBSYSTEM | 15, _SUBSYSTEM | 16
# struct nlmsghdr, then struct nfgenmsg
_ASK_GENERATION = struct.pack("=IHHIIBBH", 20, _GET_GENERATION, 1, 1, 0, 0, 0, 0)
_NETFILTER = 12  # NETLINK_NETFILTER
_VERDICT_MAPS = {
    (table.family, each.name)
    for table in TABLES
    for each in table.sets
    if each.verdicts
}


class NftError(Exception):
    """libnftables is missing, or refused a command; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NftState:
    """What the kernel has of our tables: those that are whole, and their elements."""

    whole: frozenset[str]
    elements: Mapping[Element, str]


class Nft:
    """A connection to nftables in the network namespace of the caller's thread."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as e:
            raise NftError(f"no {_LIBRARY} found; install libnftables1") from e
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        self._library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self._library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._known: tuple[int, NftState] | None = None

    def read(self, *, resync: bool = True) -> NftState:
        """Return what there is of our tables.

        The kernel counts changes of all tables. While the count is what it was after
        our own last change, what was read then still holds and nothing is listed
        (P51); a resync lists in any case.
        """
        generation = read_generation()
        if resync or self._known is None or self._known[0] != generation:
            self._known = (generation, self._read())
        return self._known[1]

    def _read(self) -> NftState:
        whole: set[str] = set()
        elements: dict[Element, str] = {}
        for table in TABLES:
            found = self._list(table)
            if frozenset(_skeleton(table.family, found)) == skeleton(table):
                whole.add(table.family)
                elements.update(_elements(table.family, found))
        return NftState(whole=frozenset(whole), elements=elements)

    def apply(self, change: Diff[Element, str], broken: Iterable[Table] = ()) -> None:
        """Change elements in one transaction; NftError if it is refused, whole.

        The tables in `broken` are made anew in it: `change` must put all their
        elements.
        """
        commands = [text for table in broken for text in _renewal(table)]
        renewed = {table.family for table in broken}
        stale = {
            element: verdict
            for element, verdict in (*change.drop.items(), *change.replaced.items())
            if element.family not in renewed
        }
        commands += _element_commands("delete", stale)
        commands += _element_commands("add", change.put)
        if not commands:
            return
        before = read_generation()
        try:
            self._run("\n".join(commands))
        except NftError:
            self._known = None
            raise
        self._remember(before, change, renewed)

    def _remember(
        self, before: int, change: Diff[Element, str], renewed: set[str]
    ) -> None:
        """Keep what is known true after our own change, if nobody else made one."""
        known, self._known = self._known, None
        after = read_generation()
        # A transaction that was committed counts one.
        if known is None or known[0] != before or after != before + 1:
            return
        kept = {
            element: verdict
            for element, verdict in known[1].elements.items()
            if element not in change.drop and element.family not in renewed
        }
        state = NftState(
            whole=known[1].whole | renewed, elements={**kept, **change.put}
        )
        self._known = (after, state)

    def _list(self, table: Table) -> list[dict[str, Any]]:
        self._library.nft_ctx_output_set_flags(self._context, _JSON)
        try:
            output = self._run(f"list table {table.family} {TABLE}")
        except NftError:
            return []  # there is none; a kernel without nftables refuses the writing
        finally:
            self._library.nft_ctx_output_set_flags(self._context, 0)
        found: list[dict[str, Any]] = json.loads(output)["nftables"]
        return found

    def _run(self, commands: str) -> str:
        code = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if code != 0:
            first = error.decode(errors="replace").strip().partition("\n")[0]
            raise NftError(f"nftables: {first or 'refused'}")
        return str(output.decode())


def read_generation() -> int:
    """Return the number of changes made to nftables in this network namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as kernel:
        kernel.settimeout(10)
        kernel.send(_ASK_GENERATION)
        reply = kernel.recv(4096)
    _, kind = struct.unpack_from("=IH", reply)
    if kind != _NEW_GENERATION:
        raise NftError("the kernel has no nftables")
    (generation,) = struct.unpack_from(">I", reply, 24)  # NFTA_GEN_ID comes first
    return int(generation)


def _renewal(table: Table) -> tuple[str, ...]:
    name = f"{table.family} {TABLE}"
    # Declaring it first makes the deletion legal where there is none.
    return (f"table {name}", f"delete table {name}", render(table))


def _element_commands(verb: str, elements: Mapping[Element, str]) -> Iterator[str]:
    by_set = defaultdict(list)
    for element, verdict in sorted(elements.items()):
        value = f" : {verdict}" if verdict and verb == "add" else ""
        by_set[element.family, element.set].append(element.key + value)
    for (family, name), keys in by_set.items():
        yield f"{verb} element {family} {TABLE} {name} {{ {', '.join(keys)} }}"


def _skeleton(family: str, found: list[dict[str, Any]]) -> Iterator[str]:
    positions: dict[str, int] = defaultdict(int)
    for entry in found:
        ((kind, body),) = entry.items()
        if kind in {"set", "map"}:
            types = body["type"]
            yield describe_set(
                family,
                Set(
                    body["name"],
                    (types,) if isinstance(types, str) else tuple(types),
                    interval="interval" in body.get("flags", ()),
                    verdicts=body.get("map") == "verdict",
                ),
            )
        elif kind == "chain":
            yield describe_chain(
                family, body["name"], body.get("hook"), body.get("prio", 0)
            )
        elif kind == "rule":
            chain = body["chain"]
            comment = body.get("comment", "")
            yield describe_rule(family, chain, positions[chain], comment)
            positions[chain] += 1


def _elements(
    family: str, found: list[dict[str, Any]]
) -> Iterator[tuple[Element, str]]:
    for entry in found:
        body = entry.get("set") or entry.get("map") or {}
        for written in body.get("elem", ()):
            if (family, body["name"]) in _VERDICT_MAPS:
                key, verdict = written
                yield Element(family, body["name"], _key(key)), _verdict(verdict)
            else:
                yield Element(family, body["name"], _key(written)), ""


def _key(written: Any) -> str:
    """Return an element as the plan writes it; interfaces are quoted, all else not."""
    match written:
        case {"concat": [interface, *rest]}:
            return " . ".join([f'"{interface}"', *map(_part, rest)])
        case str() if written[:1].isdigit():
            return written
        case str():
            return f'"{written}"'
        case _:
            return _part(written)


def _part(written: Any) -> str:
    match written:
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case _:
            return str(written)


def _verdict(written: Mapping[str, Any]) -> str:
    ((verdict, target),) = written.items()
    return f"{verdict} {target['target']}" if target else verdict
