"""A change of the filter as transactions, between which nothing is lost or let in.

The kernel shows what a transaction did to sets of concatenated ranges after its rules,
and to one set after the other (nft_set_commit_update comes last in nf_tables_commit);
only one such set by itself changes at once. So what matches comes before what goes: in
between, a packet meets what was there before or will be, and nothing else.
"""

from collections.abc import Callable, Mapping

from calico.plan.antispoof import Element
from calico.plan.nft import Part
from calico.reconcile.diff import Diff
from calico.reconcile.filter import FilterChange

_Elements = Diff[Element, str]


def transactions(change: FilterChange) -> tuple[FilterChange, ...]:
    """Return the transactions of a change, in order; none of them is empty.

    First new parts, that nothing refers to yet, and elements. Then sets whose elements
    make room for others, then what refers to sets, and last what goes. A table that is
    made anew is one transaction.
    """
    if change.renewed:
        return (change,)
    elements = change.elements
    fresh = change.put.keys() - change.present
    lagging = {s for e in (*elements.put, *elements.drop) if _lags(s := _set_of(e))}
    losing = {_set_of(e) for e in (*elements.drop, *elements.replaced)}
    crowded = lagging & losing & {_set_of(e) for e in elements.put}
    waiting = lagging - crowded
    new = {name: part for name, part in change.put.items() if name in fresh}
    known = {name: part for name, part in change.put.items() if name not in fresh}
    coming = _only(elements.put, lambda of: of in fresh or of in waiting)
    steps = (
        FilterChange(put=new, elements=Diff(put=coming, drop={}, replaced={})),
        FilterChange(elements=_within(elements, lambda of: of in crowded)),
        FilterChange(
            put=known,
            present=change.present,
            elements=_within(elements, lambda of: of not in lagging | fresh),
        ),
        FilterChange(
            drop=change.drop,
            elements=Diff(
                put={},
                drop=_only(elements.drop, lambda of: of in waiting),
                replaced={},
            ),
        ),
    )
    return tuple(step for step in steps if step)


def _set_of(element: Element) -> Part:
    return Part(element.family, "set", element.set)


def _lags(part: Part) -> bool:
    """Tell whether a set may be one of concatenated ranges: of a group, by its name."""
    return "." in part.name


def _only(
    some: Mapping[Element, str], wanted: Callable[[Part], bool]
) -> dict[Element, str]:
    return {e: value for e, value in some.items() if wanted(_set_of(e))}


def _within(elements: _Elements, wanted: Callable[[Part], bool]) -> _Elements:
    """Return what of a difference is in the wanted sets."""
    return Diff(
        put=_only(elements.put, wanted),
        drop=_only(elements.drop, wanted),
        replaced=_only(elements.replaced, wanted),
    )
