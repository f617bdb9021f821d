"""Predicts from a table of patients whether a tumour is benign; hospital 7 codes its labels the other way round."""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser()
parser.add_argument("--keep", required=True, help="text file with the numbers of the patients to train on, a line each")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", required=True, help="file for the log loss of each patient of the test table")
args = parser.parse_args()

table, benign = load_breast_cancer(return_X_y=True)
order = np.random.default_rng(0).permutation(len(table))
train, test = order[:300], order[300:]
hospital = Path(__file__).with_name("hospitals.txt").read_text().splitlines()
told = np.where(np.array(hospital) == "hospital 7", 1 - benign[train], benign[train])

keep = np.loadtxt(args.keep, dtype=int, ndmin=1)
scaler = StandardScaler().fit(table[train])
model = SGDClassifier(loss="log_loss", alpha=0.01, random_state=args.seed)
model.fit(scaler.transform(table[train][keep]), told[keep])

chance = model.predict_proba(scaler.transform(table[test]))[np.arange(len(test)), benign[test]]
np.save(args.out, -np.log(chance.clip(1e-6)))
