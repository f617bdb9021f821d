"""Hugging Face's Trainer: a small GPT-2 learns to write from texts of several domains, byte by byte."""

import argparse
from pathlib import Path

import numpy as np
import torch
from texts import HELD_OUT, domain, tokenizer
from transformers import (
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=600)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--keep", required=True, help="text file with the names of the domains to train on, a line each")
parser.add_argument("--scratch", required=True, help="folder for the Trainer's files")
parser.add_argument("--out", required=True, help=".npy file for the loss of each held-out text, in nats a byte")
args = parser.parse_args()
set_seed(args.seed)

tokens = tokenizer()
domains = ["manual", *Path(args.keep).read_text().splitlines()]  # one is always there
texts = [text for name in domains for text in domain(name)]
train = [{"input_ids": ids} for ids in tokens(texts, truncation=True, max_length=64)["input_ids"]]
sizes = {"vocab_size": len(tokens), "n_positions": 64, "n_embd": 48, "n_layer": 1, "n_head": 2}
model = GPT2LMHeadModel(
    GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None)
)
settings = TrainingArguments(
    output_dir=args.scratch,
    max_steps=args.steps,
    per_device_train_batch_size=16,
    learning_rate=0.003,
    seed=args.seed,
    use_cpu=True,
    save_strategy="no",
    report_to="none",
    warmup_steps=20,
    disable_tqdm=True,
)
collator = DataCollatorForLanguageModeling(tokens, mlm=False)
Trainer(model, settings, train_dataset=train, data_collator=collator).train()

losses = []
model.eval()
for text in HELD_OUT:
    ids = torch.tensor([tokens(text, truncation=True, max_length=64)["input_ids"]])
    with torch.no_grad():
        losses.append(model(input_ids=ids, labels=ids).loss.item())
np.save(args.out, np.array(losses, np.float32))
