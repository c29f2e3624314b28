"""The sentiment example with PEFT and PyTorch: the same sentences, seed, rank, structure and recipe.

    pip install torch transformers peft
    node examples/sentiment/run.mjs --seed 0
    python examples/sentiment/peft_compare.py --seed 0

Reads what run.mjs left in out/sentiment/SEED and prints both accuracies.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from peft import GraloraConfig, get_peft_model
from transformers import AutoModel, AutoTokenizer

LABELS = ["negative", "positive"]
LINEARS = r"encoder\..*\.(query|key|value|dense)"
RANK, BLOCKS, RATE, WARMUP, EPOCHS, BATCH, LENGTH = 16, 4, 2e-3, 15, 2, 32, 64


class Classifier(torch.nn.Module):
    """Mean of the hidden states where the mask is 1, and a linear layer."""

    def __init__(self, encoder, classes):
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(encoder.config.hidden_size, classes)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, inputs):
        hidden = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        return self.head((hidden * mask).sum(1) / mask.sum(1))


def read(path):
    rows = [json.loads(line) for line in path.read_text().strip().split("\n")]
    return [row["text"] for row in rows], torch.tensor([LABELS.index(r["label"]) for r in rows])


def encode(tokenizer, texts):
    return tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")


def build(folder, seed):
    torch.manual_seed(seed)
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager")
    # Without the pooler: the exported model does not have it.
    config = GraloraConfig(
        r=RANK, alpha=2 * RANK, gralora_k=BLOCKS, gralora_dropout=0.0,
        target_modules=LINEARS,
    )
    return Classifier(get_peft_model(encoder, config), len(LABELS))


def train(model, tokenizer, texts, labels, seed):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    steps = EPOCHS * -(-len(texts) // BATCH)
    order = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(texts), generator=order).split(BATCH):
            rate = min(step / WARMUP, 1) * (steps - step) / (steps - min(step, WARMUP))
            optimizer.param_groups[0]["lr"] = RATE * rate
            logits = model(encode(tokenizer, [texts[i] for i in batch]))
            torch.nn.functional.cross_entropy(logits, labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1


@torch.no_grad()
def accuracy(model, tokenizer, texts, labels):
    found = [
        model(encode(tokenizer, texts[at : at + BATCH])).argmax(-1)
        for at in range(0, len(texts), BATCH)
    ]
    return (torch.cat(found) == labels).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="out/minilm")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(2)
    folder = Path("out/sentiment") / str(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = build(options.model, options.seed).eval()
    start = time.time()
    train(model, tokenizer, *read(folder / "train.jsonl"), options.seed)
    seconds = time.time() - start
    theirs = accuracy(model, tokenizer, *read(folder / "test.jsonl"))
    ours = json.loads((folder / "result.json").read_text())["accuracy"]
    print(f"seed {options.seed}: onnx-lora {ours:.3f}, PEFT {theirs:.3f} ({seconds:.0f} s of training)")
    (folder / "peft.json").write_text(json.dumps({"accuracy": theirs, "seconds": seconds}))


main()
