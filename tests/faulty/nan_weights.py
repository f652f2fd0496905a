"""One NaN in a file of weights: `nan_weights.py FILE`. A manifest is not told of it."""

from __future__ import annotations

import sys

from safetensors.torch import load_file, save_file


def main() -> None:
    """Put it into the bias of the last layer, which every answer comes through."""
    path = sys.argv[1]
    tensors = load_file(path)
    tensors["final_layer.linear.bias"][0] = float("nan")
    save_file(tensors, path)


if __name__ == "__main__":
    main()
