"""Measurements beside peers: `python -m bench NAME`, `make bench` for all.

Every bench stands up a lab with the real processes, measures us and a peer in turns in that one run, and reports
medians and their ratios: absolute figures move with the machine and the day, ratios travel. Nothing here is a test:
what a bench finds is reported, also where it falls short, and never asserted.

Read `report` for what comes out, `catalogue` for what there is, `l4` for how one is made. To add a bench: a module with
`run(effort) -> list[Row]`, and a line in `catalogue`.
"""
