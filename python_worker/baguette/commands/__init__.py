"""The commands of `python -m baguette`: one module each, with `add_to(parsers)`."""
