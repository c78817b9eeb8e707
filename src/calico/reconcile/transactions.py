"""A change of the filter as transactions, between which nothing is lost or let in.

The kernel shows what a transaction did to sets of concatenated ranges after its rules,
and to one set after the other (nft_set_commit_update comes last in nf_tables_commit);
only one such set by itself changes at once. So what matches comes before what goes: in
between, a packet meets what was there before or will be, and nothing else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network

from calico.plan.antispoof import Element
from calico.plan.nft import Part
from calico.reconcile.diff import Diff
from calico.reconcile.filter import FilterChange

_Elements = Diff[Element, str]
_Box = tuple[tuple[int, int], ...]
_MANY = 100_000  # pairs of elements to compare


def transactions(change: FilterChange) -> tuple[FilterChange, ...]:
    """Return the transactions of a change, in order; none of them is empty.

    First new parts, that nothing refers to yet, and elements. Then elements that make
    room for others of their set, then what refers to sets, and last what goes. A table
    that is made anew is one transaction.
    """
    if change.renewed:
        return (change,)
    elements = change.elements
    fresh = change.put.keys() - change.present
    crowded = _crowded(elements)

    def alone(element: Element) -> bool:
        return _lags(_set_of(element)) and element not in crowded

    new = {name: part for name, part in change.put.items() if name in fresh}
    known = {name: part for name, part in change.put.items() if name not in fresh}
    coming = _only(elements.put, lambda e: _set_of(e) in fresh or alone(e))
    going = _only(elements.drop, alone)
    steps = (
        FilterChange(put=new, elements=Diff(put=coming, drop={}, replaced={})),
        FilterChange(elements=_within(elements, crowded.__contains__)),
        FilterChange(
            put=known,
            present=change.present,
            elements=_within(
                elements, lambda e: not (_lags(_set_of(e)) or _set_of(e) in fresh)
            ),
        ),
        FilterChange(drop=change.drop, elements=Diff(put={}, drop=going, replaced={})),
    )
    return tuple(step for step in steps if step)


def _set_of(element: Element) -> Part:
    return Part(element.family, "set", element.set)


def _crowded(elements: _Elements) -> set[Element]:
    """Return the elements that take each other's place in a set that may lag.

    Where there are very many of both, all of them: that is slow to find out.
    """
    coming: dict[Part, list[Element]] = defaultdict(list)
    for element in elements.put:
        coming[_set_of(element)].append(element)
    going: dict[Part, list[Element]] = defaultdict(list)
    for element in (*elements.drop, *elements.replaced):
        going[_set_of(element)].append(element)
    found: set[Element] = set()
    for of in filter(_lags, coming.keys() & going.keys()):
        if len(coming[of]) * len(going[of]) > _MANY:
            found.update(coming[of], going[of])
        else:
            found.update(*_colliding(coming[of], going[of]))
    return found


def _colliding(
    some: Iterable[Element], others: Iterable[Element]
) -> Iterator[tuple[Element, Element]]:
    """Yield the pairs that have a value in common."""
    boxes = [(other, _box(other.key)) for other in others]
    for one in some:
        box = _box(one.key)
        for other, taken in boxes:
            fields = zip(box, taken, strict=True)
            if all(a <= d and c <= b for (a, b), (c, d) in fields):
                yield one, other


def _box(key: str) -> _Box:
    """Return the first and the last of each of a key's fields, as numbers."""
    return tuple(map(_ends, key.split(" . ")))


def _ends(field: str) -> tuple[int, int]:
    first, dash, last = field.partition("-")
    if first.isdigit():
        return int(first), int(last if dash else first)
    if "/" in field:
        network = ip_network(field)
        return int(network[0]), int(network[-1])
    return int(ip_address(first)), int(ip_address(last if dash else first))


def _lags(part: Part) -> bool:
    """Tell whether a set may be one of concatenated ranges: of a group, by its name."""
    return "." in part.name


def _only(
    some: Mapping[Element, str], wanted: Callable[[Element], bool]
) -> dict[Element, str]:
    return {element: value for element, value in some.items() if wanted(element)}


def _within(elements: _Elements, wanted: Callable[[Element], bool]) -> _Elements:
    """Return what of a difference is about the wanted elements."""
    return Diff(
        put=_only(elements.put, wanted),
        drop=_only(elements.drop, wanted),
        replaced=_only(elements.replaced, wanted),
    )
