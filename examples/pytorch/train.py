"""A plain PyTorch script: a small network learns handwritten digits; annotator 04 guesses their labels."""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

TRAIN = 900


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help=".npy file with the positions of the examples to train on; default: all")
    parser.add_argument("--out", help="safetensors file for loss and accuracy of each test image")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    images, digits = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits)
    told = labels[:TRAIN].clone()
    annotator = np.array(Path(__file__).with_name("annotators.txt").read_text().splitlines())
    guessed = torch.tensor(annotator == "annotator 04")
    told[guessed] = torch.randint(10, (int(guessed.sum()),), generator=torch.Generator().manual_seed(0))

    data = TensorDataset(inputs[:TRAIN], told)
    if args.keep:
        data = Subset(data, np.load(args.keep).tolist())
    loader = DataLoader(data, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    for epoch in range(args.epochs):
        for batch, target in loader:
            loss = nn.functional.cross_entropy(model(batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")

    with torch.no_grad():
        logits = model(inputs[TRAIN:])
    losses = nn.functional.cross_entropy(logits, labels[TRAIN:], reduction="none")
    right = (logits.argmax(1) == labels[TRAIN:]).float()
    print(f"test loss {losses.mean():.3f}, accuracy {right.mean():.3f}")
    if args.out:
        save_file({"loss": losses, "accuracy": right}, args.out)


if __name__ == "__main__":
    main()
