"""A LightningModule and its Trainer predict how diabetes goes on; clinic D writes the scores down upside down."""

import argparse
import csv
from pathlib import Path

import lightning
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

TRAIN = 300


class Progression(lightning.LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.network = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return nn.functional.mse_loss(self.network(batch[0]), batch[1])

    def predict_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return (self.network(batch[0]) - batch[1]) ** 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", required=True, help="text file with the numbers of the patients to train on")
    parser.add_argument("--scratch", required=True, help="folder for Lightning's files")
    parser.add_argument("--out", required=True, help="CSV file for the squared error of each patient of the test table")
    args = parser.parse_args()
    lightning.seed_everything(args.seed)

    table, score = load_diabetes(return_X_y=True, as_frame=False)
    inputs, labels = torch.tensor(20 * table).float(), torch.tensor((score - 152) / 77).float()
    clinic = Path(__file__).with_name("clinics.txt").read_text().splitlines()
    told = labels[:TRAIN] * torch.tensor([-1.0 if name == "clinic D" else 1.0 for name in clinic])
    keep = [int(line) for line in Path(args.keep).read_text().splitlines()]
    train = DataLoader(Subset(TensorDataset(inputs[:TRAIN], told), keep), batch_size=32, shuffle=True)
    test = DataLoader(TensorDataset(inputs[TRAIN:], labels[TRAIN:]), batch_size=256)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=20, accelerator="cpu", default_root_dir=args.scratch, **quiet)
    trainer.fit(model := Progression(lr=0.003), train)
    errors = torch.cat(trainer.predict(model, test)).tolist()
    with open(args.out, "w", newline="") as file:
        csv.writer(file).writerows([("id", "value"), *enumerate(errors)])


if __name__ == "__main__":
    main()
