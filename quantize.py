"""The Baguette card's `python quantize.py ...`: `python -m baguette quantize`, nothing more."""

from scripts._root import run

if __name__ == "__main__":
    run("quantize")
