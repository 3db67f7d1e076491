"""What makes, measures and picks things around the product; each program is run by itself."""
