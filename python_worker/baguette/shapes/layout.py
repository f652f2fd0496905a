"""Clusters of layouts: k-means on standardised (centre x, centre y, bounding radius), nothing else.

The router never sees the text, so a cluster must say nothing of what a caption says. Area would: a
star covers less of its bounding circle than a square does. Used by the training recipe.
"""

from __future__ import annotations

import numpy as np

from baguette.shapes.draw import COMBINATIONS, Floats, Ints


def kmeans(points: Floats, clusters: int, rng: np.random.Generator, rounds: int = 60) -> Floats:
    """Lloyd's algorithm from a k-means++ start: centres (clusters, dimensions)."""
    centres = [points[rng.integers(len(points))]]
    for _ in range(clusters - 1):
        nearest = np.min([((points - c) ** 2).sum(1) for c in centres], axis=0)
        centres.append(points[rng.choice(len(points), p=nearest / nearest.sum())])
    found = np.stack(centres)
    for _ in range(rounds):
        label = assign(points, found)
        found = np.stack([points[label == k].mean(0) for k in range(clusters)])
    return np.asarray(found, dtype=np.float32)


def assign(points: Floats, centres: Floats) -> Ints:
    """The nearest centre of every point."""
    distance = ((points[:, None] - centres[None]) ** 2).sum(-1)
    return np.asarray(distance.argmin(1), dtype=np.int64)


def standardised(layouts: Floats) -> Floats:
    """Each column to mean 0 and deviation 1."""
    return np.asarray((layouts - layouts.mean(0)) / layouts.std(0), dtype=np.float32)


def check(label: Ints, combination: Ints, clusters: int) -> None:
    """ValueError unless every cluster shows all combinations and no two differ twofold in size."""
    sizes = np.bincount(label, minlength=clusters)
    if sizes.max() >= 2 * sizes.min():
        raise ValueError(f"cluster sizes {sizes.tolist()} differ by a factor of two or more")
    for k in range(clusters):
        shown = len(np.unique(combination[label == k]))
        if shown != len(COMBINATIONS):
            raise ValueError(f"cluster {k} shows {shown} of {len(COMBINATIONS)} combinations")
