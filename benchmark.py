"""The Baguette card's `python benchmark.py ...`: `python -m baguette benchmark`, nothing more."""

from scripts._root import run

if __name__ == "__main__":
    run("benchmark")
