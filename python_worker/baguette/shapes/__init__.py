"""The world of paris-mini: drawn shapes, their captions, their layouts, and the judge of a picture.

Used by scripts/train_mini.py, scripts/judge_mini.py and the tests; nothing that serves a request
imports it.
"""
