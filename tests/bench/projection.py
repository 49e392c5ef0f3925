#!/usr/bin/env python3
"""Projections beside scikit-learn and umap-learn, on vectors like embeddings: PYTHONPATH=… python3 tests/bench/projection.py [sizes] [folder]

Needs numpy, scikit-learn and umap-learn, and `make build/plain/tests/bench/bench_projection`. Every figure is of a process of its own: the time of the computation alone
(the references' compiling is done before), the peak of its memory, and the trustworthiness of the result, measured by the same function for all
(1,000 points taken by chance, 15 neighbours). The references are asked for the same every time as well: random_state is set."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = ROOT / "build/plain/tests/bench/bench_projection"
DIM = 384
REFERENCES_UP_TO = {"pca": 200000, "umap": 50000, "tsne": int(os.environ.get("TSNE_UP_TO", "50000"))}


def vectors(count, topics=200):
    """Topics of very different sizes, each with a few directions of its own, and noise in all."""
    random = numpy.random.default_rng(1)
    centres = random.normal(size=(topics, DIM)).astype(numpy.float32)
    weights = 1 / numpy.arange(1, topics + 1) ** 0.7
    topic = random.choice(topics, size=count, p=weights / weights.sum())
    out = numpy.empty((count, DIM), numpy.float32)
    for t in range(topics):
        mine = numpy.where(topic == t)[0]
        directions = random.normal(size=(12, DIM)).astype(numpy.float32) / numpy.sqrt(12)
        out[mine] = 0.8 * centres[t] + 0.9 * random.normal(size=(len(mine), 12)).astype(numpy.float32) @ directions
        out[mine] += 0.25 * random.normal(size=(len(mine), DIM)).astype(numpy.float32)
    return out / numpy.linalg.norm(out, axis=1, keepdims=True)


def trustworthiness(points, shown, k=15, sample=1000):
    random = numpy.random.default_rng(2)
    n = len(points)
    faults = 0
    for i in random.choice(n, size=min(sample, n), replace=False):
        truth = ((points - points[i]) ** 2).sum(1)
        truth[i] = -1
        seen = ((shown - shown[i]) ** 2).sum(1)
        seen[i] = numpy.inf
        near = numpy.argpartition(seen, k)[:k]
        rank = numpy.argsort(numpy.argsort(truth, kind="stable"), kind="stable")
        faults += numpy.maximum(rank[near] - k, 0).sum()
    return 1 - 2 / (min(sample, n) * k * (2 * n - 3 * k - 1)) * faults


def peak_mb():
    """Of this program: what its parent took before does not count."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def by_reference(method, path, count):
    """In a process of its own: seconds, peak MB, and the coordinates in a file."""
    points = numpy.fromfile(path, numpy.float32).reshape(-1, DIM)[:count]
    from sklearn.decomposition import PCA
    if method == "pca":
        make = lambda x: PCA(2).fit_transform(x)
    elif method == "tsne":
        from sklearn.manifold import TSNE
        make = lambda x: TSNE(random_state=0, n_jobs=-1).fit_transform(PCA(50, random_state=0).fit_transform(x) if len(x) > 50 else x)
    else:
        import umap
        make = lambda x: umap.UMAP(random_state=0, metric="cosine").fit_transform(x)
    if method != "pca":
        make(points[:200])
        if method == "umap" and count > 5000:
            make(points[:5000])  # what it compiles for many points
    before, cpu_before = time.monotonic(), time.process_time()
    shown = make(points)
    seconds, cpu_seconds = time.monotonic() - before, time.process_time() - cpu_before
    numpy.asarray(shown, numpy.float32).tofile(path + ".reference")
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb()}))


def run(command):
    # Threads that wait in a loop would be counted as work.
    out = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    if out.returncode:
        sys.exit(out.stderr[-2000:])
    return json.loads(out.stdout.strip().splitlines()[-1])


def main():
    sizes = [int(n) for n in (sys.argv[1] if len(sys.argv) > 1 else "1000,10000,50000,200000").split(",")]
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        path = os.path.join(folder, "vectors")
        vectors(max(sizes)).tofile(path)
        print("| points | method | ours | reference | CPU time, ours | reference | ratio | memory, ours | reference | trustworthiness, ours | reference |\n|" + "---|" * 11)
        for count in sizes:
            points = numpy.fromfile(path, numpy.float32).reshape(-1, DIM)[:count]
            for method in ("pca", "umap", "tsne"):
                ours = run([str(OURS), path, str(count), str(DIM), method])
                shown = numpy.fromfile(f"{path}.{method}", numpy.float32).reshape(-1, 2)
                cells = [f"{count:,}", method, f"{ours['seconds']:.1f} s", "", f"{ours['cpu_seconds']:.1f} s", "", "", f"{ours['peak_mb']:.0f} MB", "",
                         f"{trustworthiness(points, shown):.3f}", ""]
                if count <= REFERENCES_UP_TO[method]:
                    theirs = run([sys.executable, __file__, "--reference", method, path, str(count)])
                    shown = numpy.fromfile(path + ".reference", numpy.float32).reshape(-1, 2)
                    cells[3], cells[5], cells[6] = f"{theirs['seconds']:.1f} s", f"{theirs['cpu_seconds']:.1f} s", f"{theirs['cpu_seconds'] / ours['cpu_seconds']:.1f}"
                    cells[8], cells[10] = f"{theirs['peak_mb']:.0f} MB", f"{trustworthiness(points, shown):.3f}"
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--reference"]:
        by_reference(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
