"""The memory bank: normal patches, the index that searches them, and the files that keep both."""

from anomaly.memory_bank.bank import MemoryBank
from anomaly.memory_bank.kinds import INDEX_KINDS, IndexKind, check_index, choose_index, resolve_index

__all__ = ["INDEX_KINDS", "IndexKind", "MemoryBank", "check_index", "choose_index", "resolve_index"]
