"""Random requests to a running service: `make fuzz`."""
