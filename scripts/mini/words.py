"""The words: CLIP's tokenizer with paris-mini's vocabulary, the text encoder, every caption's ids.

The vocabulary is CLIP's own kind - all bytes, merges, two marks - with merges learnt until each
word of a caption is one token. So any text can be written, and a caption fits in 16 tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from baguette.shapes import caption
from baguette.shapes.draw import COMBINATIONS

LENGTH = 16
WIDTH = 96
START, END = "<|startoftext|>", "<|endoftext|>"
FORMS = len(caption.PHRASINGS) + 1  # every phrasing, and the shape alone


def write_tokenizer(folder: Path) -> None:
    """Learn the merges and write `folder` as CLIPTokenizer reads it."""
    byte_characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4096, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
    )
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(caption.VOCABULARY, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*byte_characters, *(c + "</w>" for c in byte_characters)]
    tokens += [a + b for a, b in merges]
    tokens += [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1))
    _check(CLIPTokenizer.from_pretrained(folder))


def _check(tokenizer: CLIPTokenizer) -> None:
    for word in caption.VOCABULARY:
        if len(tokenizer(word).input_ids) != 3:
            raise SystemExit(f"{word!r} is not one token: {tokenizer.tokenize(word)}")


def caption_ids(folder: Path) -> Tensor:
    """Token ids (combinations * FORMS + 1, 16): the forms of a combination in a row, "" last."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    texts = [caption.caption(c, f) for c in range(len(COMBINATIONS)) for f in range(FORMS)]
    if max(len(tokenizer(text).input_ids) for text in texts) > LENGTH:
        raise SystemExit(f"a caption is longer than {LENGTH} tokens")
    ids: Tensor = tokenizer(
        [*texts, ""], padding="max_length", max_length=LENGTH, return_tensors="pt"
    ).input_ids
    return ids


def build(folder: Path) -> CLIPTextModel:
    """An untrained text encoder for the tokenizer in `folder`."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config)


@torch.no_grad()
def contexts(model: CLIPTextModel, ids: Tensor) -> Tensor:
    """Last hidden states (rows, 16, WIDTH) of all captions, by the frozen encoder."""
    return torch.cat([model(input_ids=part).last_hidden_state for part in ids.split(256)])
