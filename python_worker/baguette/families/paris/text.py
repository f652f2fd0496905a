"""Prompts to text contexts: CLIPTokenizer and CLIPTextModel of `transformers`.

Called by `requester.py`. Imports transformers, so only the pipeline worker and the single-process
pipeline may load it.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from baguette.device import Numbers
from baguette.errors import WeightsError
from baguette.families.paris.files import part_folder
from baguette.weights import complete, readable

# Its loading bars would be the only lines of a node's log that are not JSON.
transformers_logging.disable_progress_bar()


class TextEncoder:
    """prompt -> context (L, D) fp32, one prompt at a time; L is the tokenizer's own length."""

    def __init__(self, model_dir: Path, numbers: Numbers) -> None:
        tokenizer = part_folder(model_dir, "tokenizer")
        text_encoder = part_folder(model_dir, "text_encoder")
        _check_vocabulary(tokenizer)
        with readable(tokenizer):
            self.tokenizer = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
        with readable(text_encoder):
            model, info = CLIPTextModel.from_pretrained(
                text_encoder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=numbers.compute,
            )
        complete(text_encoder, info)
        if len(self.tokenizer) != model.config.vocab_size:
            raise WeightsError(
                f"{tokenizer} knows {len(self.tokenizer)} tokens but the text "
                f"encoder {model.config.vocab_size}: they are not of one model"
            )
        self.model = model.eval().to(numbers.device)
        self.length = min(
            self.tokenizer.model_max_length, self.model.config.max_position_embeddings
        )

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """Last hidden state, padded and truncated to L tokens; every position attended."""
        ids = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.model.device)  # (1, L)
        return self.model(input_ids=ids).last_hidden_state[0].float().cpu()


def _check_vocabulary(folder: Path) -> None:
    # Without its files transformers makes up a vocabulary of three tokens and says nothing.
    files = ("vocab.json", "merges.txt")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing and not (folder / "tokenizer.json").is_file():
        raise WeightsError(f"{folder} lacks {' and '.join(missing)}: fetch the weights again")


def unknown_words(prompt: str, vocabulary: tuple[str, ...]) -> list[str]:
    """The prompt's words outside a model's declared vocabulary; none when it declares none."""
    if not vocabulary:
        return []
    words = re.findall(r"[^\W_]+", prompt.lower())
    return sorted(set(words) - set(vocabulary))
