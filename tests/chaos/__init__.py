"""A real service under random faults while clients use it, and an oracle that says what was lost: `make chaos`."""
