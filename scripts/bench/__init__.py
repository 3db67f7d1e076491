"""The benchmark: our CPU path and its peers on the same weights and audio, each in a process of its own.

materials.py makes weights, packs and audio; contestants.py says how each program is called; measure.py runs a
process and watches its clock and memory; report.py makes the tables; memory.py follows one model over ten hours.
run_peer.py runs inside .venv-bench. Nothing here imports the product: it is run as users run it.
"""
