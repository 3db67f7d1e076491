"""The demo speech model: grammar, synthetic speech, training, report. Entry point: scripts/train_demo_model.py."""
