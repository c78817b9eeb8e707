"""S1: instances of one network reach each other, wherever they are."""

from itertools import combinations, permutations

from calico.verify.layout import PLACEMENTS, placement
from calico.verify.reach import reach
from calico.verify.result import Tally
from calico.verify.stage import Stage


def check(stage: Stage, tally: Tally) -> None:
    """Try every ordered pair of one network."""
    sites = stage.on("A")
    tried = {placement(*pair) for pair in combinations(sites, 2)}
    for missing in [p for p in PLACEMENTS if p not in tried]:
        stage.notes.append(f"this cloud has no two instances placed: {missing}")
    reach(tally, permutations(sites, 2))
