"""Wires compress, anomaly and reports together, behind the command line."""
