"""The shipped demo: a small model, a few recordings of generated speech, and a tour of the command line."""
