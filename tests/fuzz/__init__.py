"""Random input for parts of the product; `make fuzz-media`."""
