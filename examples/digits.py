"""Handwritten digits through scaling, PCA and several classifiers, scored on images that they have not seen.

Runs unchanged with `python examples/digits.py`, `bridgehead run examples/digits.py`, and with `--agents 2`.
"""

from __future__ import annotations

from typing import Any

import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Split = dict[str, Array]


@bh.task
def load(seed: int) -> Split:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=0.25, random_state=seed, stratify=labels)
    return dict(zip(("train", "test", "train_labels", "test_labels"), map(np.asarray, parts), strict=True))


@bh.task
def scale(split: Split) -> Split:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(split["train"])
    return {**split, "train": scaler.transform(split["train"]), "test": scaler.transform(split["test"])}


@bh.task
def project(split: Split, components: int) -> Split:
    from sklearn.decomposition import PCA

    pca = PCA(components, random_state=0).fit(split["train"])
    return {**split, "train": pca.transform(split["train"]), "test": pca.transform(split["test"])}


@bh.task
def score(split: Split, name: str) -> float:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    makers: dict[str, Any] = {
        "nearest neighbours": KNeighborsClassifier,
        "logistic regression": lambda: LogisticRegression(max_iter=2000),
        "support vectors": SVC,
        "random forest": lambda: RandomForestClassifier(200, random_state=0),
    }
    model = makers[name]().fit(split["train"], split["train_labels"])
    return float(model.score(split["test"], split["test_labels"]))


CLASSIFIERS = ["nearest neighbours", "logistic regression", "support vectors", "random forest"]
COMPONENTS = [8, 16, 32]

p = bh.Pipeline("digits")
scaled = p.add(scale, p.add(load, 0))
table = {
    (n, name): p.add(score, projected, name)
    for n in COMPONENTS
    for projected in [p.add(project, scaled, n)]
    for name in CLASSIFIERS
}

if __name__ == "__main__":
    with p.run() as run:
        print(f"{'accuracy':<22}" + "".join(f"{n:>4} components" for n in COMPONENTS))
        for name in CLASSIFIERS:
            print(f"{name:<22}" + "".join(f"{run[table[n, name]].result():>15.3f}" for n in COMPONENTS))
