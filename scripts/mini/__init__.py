"""The stages of scripts/train_mini.py, one module each."""
