"""The table of train.py, with a Python function as the row: 200 rows, the proof and the report in seconds."""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

import pydt

table, benign = load_breast_cancer(return_X_y=True)
order = np.random.default_rng(0).permutation(len(table))
train, test = order[:300], order[300:]
hospital = Path(__file__).with_name("hospitals.txt").read_text().splitlines()
told = np.where(np.array(hospital) == "hospital 7", 1 - benign[train], benign[train])
table = StandardScaler().fit(table[train]).transform(table)


def losses(row: pydt.RowInput) -> dict[str, np.ndarray]:
    model = SGDClassifier(loss="log_loss", alpha=0.01, random_state=row.seed)
    model.fit(table[train][row.examples], told[row.examples])
    chance = model.predict_proba(table[test])[np.arange(len(test)), benign[test]]
    return {"log loss": -np.log(chance.clip(1e-6))}


def plan(seed: int = 0, models: int = 200) -> pydt.Plan:
    return pydt.Plan(
        pydt.Groups(hospital, name="patients", by="hospital"),
        design=pydt.design.bernoulli(groups=10, models=models, seed=seed),
        recipe=pydt.Function(losses, depends=[Path(__file__).with_name("hospitals.txt")]),
        tasks=[pydt.Measure("log loss", len(test), unit="nats", higher_is_better=False)],
        seed=seed,
    )


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "patients"
    store = pydt.run(plan(), folder, progress="json")
    pydt.counterfactual(store, plan(), drop=[1])
    results = pydt.report(store, folder, plan())
    worst = min(results["groups"], key=lambda group: group["value"])
    print(f"{worst['name']}: {worst['value']:.3f} nats, q = {worst['q']:.2g}; the page is {folder}/report.html")
