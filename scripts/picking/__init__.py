"""Which image runs on a host and why: the table of variants, a host's facts, and the rules that join them.

Standard library only, and Python 3.8: it runs on hosts where nothing has been installed yet.
"""
