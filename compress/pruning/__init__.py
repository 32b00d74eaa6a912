"""The verb `prune` and its parts: scores become a selection, the selection a cut, and a target finds the ratio."""

from compress.pruning.procedure import SPARSE_STEPS, check_request, prune
from compress.pruning.ranking import Ranking, channel_groups, find_method, left_whole, method_name, rank
from compress.pruning.selection import Rule, check_ratio
from compress.pruning.targets import Target

__all__ = [
    "SPARSE_STEPS",
    "Ranking",
    "Rule",
    "Target",
    "channel_groups",
    "check_ratio",
    "check_request",
    "find_method",
    "left_whole",
    "method_name",
    "prune",
    "rank",
]
