"""The Baguette card's `python generate.py ...`: `python -m baguette generate`, nothing more."""

from scripts._root import run

if __name__ == "__main__":
    run("generate")
