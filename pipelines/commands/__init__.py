"""The commands, a file for each or for a few of a kind. Each parses, calls one function, and prints.

Everything that loads torch is imported inside the commands: help must not wait for it.
"""
