"""Texts by domain, of what Python itself ships: parts of its manual, its code, and letters that mean nothing."""

import inspect
import random
import statistics
import textwrap
from pydoc_data.topics import topics

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_LINES = [part for name in sorted(topics) for part in textwrap.wrap(topics[name], 160) if len(part) > 120]
HELD_OUT = _LINES[::20][:64]
_MANUAL = [line for line in _LINES if line not in set(HELD_OUT)]


def domain(name: str, count: int = 60) -> list[str]:
    """Texts of "manual" and "manual A" to "manual D", "code", "numbers", "shuffled letters" or "upper case"."""
    own = random.Random(name)
    texts = own.sample(_MANUAL, count)
    if name == "code":
        texts = textwrap.wrap(inspect.getsource(statistics), 160)[:count]
    elif name == "numbers":
        texts = [" ".join(str(own.randrange(10_000)) for _ in range(32)) for _ in texts]
    elif name == "shuffled letters":
        texts = ["".join(own.sample(text, len(text))) for text in texts]
    elif name == "upper case":
        texts = [text.upper() for text in texts]
    return texts


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: needs no download and no training."""
    letters = ["<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    plain = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>")
