"""Damaged inputs for every reader of files: what is found is in docs/reliability.md; `__main__` says how to run it."""
