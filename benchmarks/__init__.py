"""Developer scripts: speed, soak, cost model, comparison of views, GPU check.

Run from the root of a checkout as ``python -m benchmarks.speed`` and the
like; docs/benchmarks/README.md describes each. Not part of the wheel.
"""
