"""Measuring the library against what one would use instead, and against the machine's limits.

``sizeless bench`` runs it; ``benchmarks/README.md`` says how to read what it writes.
"""
