#!/usr/bin/env python3
"""Writes tests/golden/projections.json: two small sets of points, and what scikit-learn and umap-learn make of them.

Needs numpy, scikit-learn and umap-learn. The coordinates of PCA are kept (they are unique but for their signs), of UMAP and t-SNE how good
they are: nobody's coordinates are like another's there."""
import json
import pathlib

import numpy
import umap
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.neighbors import NearestNeighbors

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/projections.json"
SCALE = 1000  # points are kept as whole numbers
K = 15


def mixture():
    """Twelve clouds of unequal size and width in 24 dimensions, of length 1 as embeddings are."""
    random = numpy.random.default_rng(5)
    centres = random.normal(size=(12, 24))
    sizes = [90, 80, 70, 60, 50, 50, 40, 40, 40, 30, 30, 20]
    rows = [c + random.normal(size=(n, 24)) * w for c, n, w in zip(centres, sizes, random.uniform(0.25, 0.7, 12))]
    points = numpy.concatenate(rows)
    return points / numpy.linalg.norm(points, axis=1, keepdims=True), True


def roll():
    """A sheet rolled up in three dimensions."""
    random = numpy.random.default_rng(6)
    t = 1.5 * numpy.pi * (1 + 2 * random.random(500))
    return numpy.stack([t * numpy.cos(t), 21 * random.random(500), t * numpy.sin(t)], axis=1) / 10, False


def kept_neighbors(points, shown):
    a = NearestNeighbors(n_neighbors=K).fit(points).kneighbors(return_distance=False)
    b = NearestNeighbors(n_neighbors=K).fit(shown).kneighbors(return_distance=False)
    return float(numpy.mean([len(set(x) & set(y)) / K for x, y in zip(a, b)]))


def figures(points, shown):
    return {"trustworthiness": round(float(trustworthiness(points, shown, n_neighbors=K)), 5), "kept": round(kept_neighbors(points, shown), 5)}


def compare(made, is_cosine):
    whole = numpy.round(made * SCALE).astype(int)
    points = whole / SCALE
    shown = PCA(2).fit_transform(points)
    pca = {"coordinates": numpy.round(shown, 6).tolist(), "ratio": float(PCA(2).fit(points).explained_variance_ratio_.sum()), **figures(points, shown)}
    layouts = [umap.UMAP(random_state=s, n_neighbors=K, metric="cosine" if is_cosine else "euclidean").fit_transform(points) for s in range(3)]
    by_umap = [figures(points, layout) for layout in layouts]
    tsne = TSNE(random_state=0)
    layout = tsne.fit_transform(points)
    return {"is_cosine": is_cosine, "scale": SCALE, "points": whole.tolist(), "pca": pca,
            "umap": {name: round(float(numpy.mean([f[name] for f in by_umap])), 5) for name in by_umap[0]},
            "tsne": {"divergence": round(float(tsne.kl_divergence_), 5), **figures(points, layout)}}


def main():
    sets = {"mixture": compare(*mixture()), "roll": compare(*roll())}
    curves = [[m, s, *umap.umap_.find_ab_params(s, m)] for m, s in ((0.1, 1.0), (0.0, 1.0), (0.5, 1.0), (0.8, 2.0))]
    OUT.write_text(json.dumps({"sets": sets, "curves": curves}, separators=(",", ":")) + "\n", encoding="utf-8")
    for name, made in sets.items():
        print(name, {m: {k: v for k, v in made[m].items() if k != "coordinates"} for m in ("pca", "umap", "tsne")})


if __name__ == "__main__":
    main()
