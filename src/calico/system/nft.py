"""nftables through libnftables, in this process: one atomic transaction a change.

Ours are the tables named `calico` of the families in `plan.ruleset`, whole. A change
costs its own parts and elements, and the tables are read only when somebody else may
have changed them (P51).
"""

import ctypes
import json
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from calico.plan.antispoof import Element
from calico.plan.nft import Part, describe_chain, describe_set
from calico.plan.ruleset import TABLE, TABLES, Set
from calico.reconcile.filter import FilterChange, FilterState, render
from calico.system.nft_elements import can_encode, change_elements

_LIBRARY = "libnftables.so.1"
# NFT_CTX_OUTPUT_JSON, _NUMERIC_PROTO, _NUMERIC_PRIO, _NUMERIC_SYMBOL: names would
# depend on the files of the machine (nftables/libnftables.h).
_JSON = 1 << 4 | 1 << 7 | 1 << 8 | 1 << 9
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEW_GENERATION, _GET_GENERATION = _SUBSYSTEM | 15, _SUBSYSTEM | 16
# struct nlmsghdr, then struct nfgenmsg
_ASK_GENERATION = struct.pack("=IHHIIBBH", 20, _GET_GENERATION, 1, 1, 0, 0, 0, 0)
_NETFILTER = 12  # NETLINK_NETFILTER


class NftError(Exception):
    """libnftables is missing, or refused a command; the message says which and why."""


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
        self._left: int | None = None  # the generation after our own last change
        self._sets: dict[tuple[str, str], Set] = {}  # as read or made, by family, name

    def read(self, *, resync: bool = True) -> FilterState | None:
        """Return what there is of our tables; None if it is what was left.

        The kernel counts changes of all tables. While the count is what it was after
        our own last change or reading, nothing is listed (P51); a resync lists in any
        case.
        """
        generation = read_generation()
        if not resync and self._left == generation:
            return None
        self._left = generation
        return self._read()

    def _read(self) -> FilterState:
        parts: dict[Part, str] = {}
        elements: dict[Element, str] = {}
        self._sets = {}
        for table in TABLES:
            found = self.list_table(table.family)
            self._sets |= {(table.family, s.name): s for s in _sets(found)}
            parts.update(_parts(table.family, found))
            elements.update(_elements(table.family, found))
        return FilterState(parts=parts, elements=elements)

    def apply(self, change: FilterChange) -> None:
        """Make a change in one transaction; NftError if it is refused, whole."""
        if not change:
            return
        before = read_generation()
        try:
            self._transact(change)
        except NftError:
            self._left = None
            raise
        # A transaction that was committed counts one.
        mine = self._left == before and read_generation() == before + 1
        self._left = before + 1 if mine else None

    def _transact(self, change: FilterChange) -> None:
        if change.has_parts or not can_encode(change.elements, self._sets):
            self._run(render(change))
            self._sets |= {
                (name.family, name.name): part
                for name, part in change.put.items()
                if isinstance(part, Set)
            }
            return
        try:
            change_elements(change.elements, self._sets)
        except (OSError, ValueError) as e:  # refused, or nothing that can be encoded
            raise NftError(f"nftables: {e}") from e

    def list_table(self, family: str) -> list[dict[str, Any]]:
        """Return our table of a family as libnftables' JSON; empty if there is none."""
        self._library.nft_ctx_output_set_flags(self._context, _JSON)
        try:
            output = self._run(f"list table {family} {TABLE}")
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


def _parts(family: str, found: list[dict[str, Any]]) -> dict[Part, str]:
    """Return the sets and chains that were read, as the lines that describe them."""
    parts = {}
    chains = {}
    comments: dict[str, list[str]] = defaultdict(list)
    for entry in found:
        ((kind, body),) = entry.items()
        if kind in {"set", "map"}:
            parts[Part(family, "set", body["name"])] = describe_set(_set(body))
        elif kind == "chain":
            chains[body["name"]] = body
        elif kind == "rule":
            comments[body["chain"]].append(body.get("comment", ""))
    for name, body in chains.items():
        line = describe_chain(
            body.get("hook"),
            body.get("prio", 0),
            comments[name],
            nat=body.get("type") == "nat",
        )
        parts[Part(family, "chain", name)] = line
    return parts


def _sets(found: list[dict[str, Any]]) -> Iterator[Set]:
    for entry in found:
        if body := entry.get("set") or entry.get("map"):
            yield _set(body)


def _set(body: Mapping[str, Any]) -> Set:
    types = body["type"]
    return Set(
        body["name"],
        (types,) if isinstance(types, str) else tuple(types),
        interval="interval" in body.get("flags", ()),
        verdicts=body.get("map") == "verdict",
        counted="stmt" in body,
        to=_target(body.get("map", "verdict")),
    )


def _target(written: str | list[str]) -> str:
    """Return the type of what a map leads to; empty for verdicts."""
    if isinstance(written, list):
        return " . ".join(written)
    return written.replace("verdict", "")


def _elements(
    family: str, found: list[dict[str, Any]]
) -> Iterator[tuple[Element, str]]:
    for entry in found:
        body = entry.get("set") or entry.get("map")
        if not body:
            continue
        named = "ifname" in body["type"]  # then it comes first
        for written in body.get("elem", ()):
            key, value = _entry(written)
            yield Element(family, body["name"], _key(key, named=named)), value


def _entry(written: Any) -> tuple[Any, str]:
    """Return an element's key, and what it leads to or its comment."""
    match written:
        case [key, str(value)]:
            return key, value
        case [key, {"concat": parts}]:
            return key, " . ".join(map(str, parts))
        case [key, verdict]:
            return key, _verdict(verdict)
        case {"elem": {"val": key, **more}}:
            return key, str(more.get("comment", ""))
        case _:
            return written, ""


def _key(written: Any, *, named: bool) -> str:
    """Return an element as the plan writes it; interfaces are quoted, all else not."""
    match written:
        case {"concat": parts}:
            texts = [_part(part) for part in parts]
        case _:
            texts = [_part(written)]
    if named:
        texts[0] = f'"{texts[0]}"'
    return " . ".join(texts)


def _part(written: Any) -> str:
    match written:
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{first}-{last}"
        case _:
            return str(written)


def _verdict(written: Mapping[str, Any]) -> str:
    ((verdict, target),) = written.items()
    return f"{verdict} {target['target']}" if target else verdict
