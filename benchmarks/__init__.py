"""Ratios of flowtrio's costs to bare Trio's: ``python -m benchmarks [--quick] [SUBJECT ...]``."""
