"""SeACo-Paraformer on small machines: the engine (`app.asr`) and what people touch around it."""
