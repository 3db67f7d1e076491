"""Shared by several tests: the reference implementation, and models made on the spot."""
