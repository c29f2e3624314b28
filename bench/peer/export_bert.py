"""Writes the BERT of bert.py for both sides.

    python export_bert.py FOLDER [--layers 6] [--hidden 384] …

FOLDER/bert<hidden>-ts.onnx (TorchScript exporter, opset 17), FOLDER/bert<hidden>-dynamo.onnx, and
FOLDER/bert<hidden>, which `from_pretrained` reads.
"""

import argparse
from pathlib import Path

import torch
from bert import INPUTS, add_model_options, build_bert, random_batch


class Logits(torch.nn.Module):
    """Takes its inputs by position and gives one tensor, as an exporter wants it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exporters", default="ts,dynamo")
    add_model_options(parser)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"bert{options.hidden}"

    model = build_bert(options).eval()
    model.save_pretrained(path)
    batch = random_batch(options, rows=2, length=16)
    common = {
        "args": tuple(batch[name] for name in INPUTS),
        "input_names": INPUTS,
        "output_names": ["logits"],
    }
    axes = {0: "batch", 1: "sequence"}
    exporters = options.exporters.split(",")
    if "ts" in exporters:
        torch.onnx.export(
            Logits(model),
            f=f"{path}-ts.onnx",
            dynamo=False,
            opset_version=17,
            dynamic_axes={**{name: axes for name in INPUTS}, "logits": {0: "batch"}},
            **common,
        )
    if "dynamo" in exporters:
        torch.onnx.export(
            Logits(model),
            f=f"{path}-dynamo.onnx",
            dynamo=True,
            external_data=False,
            dynamic_shapes=tuple(axes for _ in INPUTS),
            **common,
        )


if __name__ == "__main__":
    main()
