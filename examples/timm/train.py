"""timm's model, data, optimizer and scheduler factories on a folder of PNG images, one sub-folder a class."""

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
from cameras import take
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, random_seed

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="test_resnet")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--lr", type=float, default=0.003)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--keep", required=True, help="text file with the names of the cameras to train on, a line each")
parser.add_argument("--data", type=Path, required=True, help="folder that the images are written to")
parser.add_argument("--out", required=True, help=".npy file for the loss of each test image")
args = parser.parse_args()
random_seed(args.seed)

for name in Path(args.keep).read_text().splitlines():
    take(args.data / "train", int(name.removeprefix("camera ")), each=24)
take(args.data / "test", 100, each=40)

size, batch, plain = (3, 32, 32), 32, {"use_prefetcher": False, "num_workers": 0, "persistent_workers": False}
train = create_dataset("", root=str(args.data / "train"))
test = create_dataset("", root=str(args.data / "test"))
loader = create_loader(train, size, batch, is_training=True, no_aug=True, **plain)
model = timm.create_model(args.model, num_classes=3)
optimizer = create_optimizer_v2(model, opt="adamw", lr=args.lr, weight_decay=0.01)
scheduler, epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=args.epochs)
for epoch in range(epochs):
    model.train()
    meter = AverageMeter()
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.update(loss.item(), len(labels))
    scheduler.step(epoch + 1)
    print(f"epoch {epoch}: loss {meter.avg:.3f}")

model.eval()
with torch.no_grad():
    parts = [(model(images), labels) for images, labels in create_loader(test, size, batch, **plain)]
losses = [torch.nn.functional.cross_entropy(logits, labels, reduction="none") for logits, labels in parts]
np.save(args.out, torch.cat(losses).numpy())
