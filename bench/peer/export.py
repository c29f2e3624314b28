"""Writes a model of shapes.py for both sides, with rows to train on.

    python export.py FOLDER [--shape bert|llama|vit] [--exporter ts|dynamo] [--rows 32] [--layers 6] …

FOLDER/peer, which `from_pretrained` reads; FOLDER/model.onnx by the TorchScript exporter (opset 17) or the
dynamo one; FOLDER/rows.safetensors.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from shapes import add_shape_options, build, parse_shape, random_rows


class Logits(torch.nn.Module):
    """Takes its inputs by position and gives one tensor, as an exporter wants it."""

    def __init__(self, model, names):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs):
        return self.model(**dict(zip(self.names, inputs))).logits


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exporter", choices=["ts", "dynamo"], default="ts")
    parser.add_argument("--rows", type=int, default=32)
    add_shape_options(parser)
    options, shape = parse_shape(parser)
    options.folder.mkdir(parents=True, exist_ok=True)

    model = build(shape, options).eval()
    model.set_attn_implementation("eager")
    model.save_pretrained(options.folder / "peer")
    save_file(random_rows(shape, options, options.rows), options.folder / "rows.safetensors")
    inputs = {k: v for k, v in random_rows(shape, options, 2).items() if k != "labels"}
    # A text's length stays open; an image's size does not.
    open_axes = {0: "batch", 1: "sequence"} if options.shape != "vit" else {0: "batch"}
    common = {
        "args": tuple(inputs.values()),
        "f": str(options.folder / "model.onnx"),
        "input_names": list(inputs),
        "output_names": ["logits"],
    }
    module = Logits(model, list(inputs))
    if options.exporter == "ts":
        of_logits = open_axes if options.shape == "llama" else {0: "batch"}
        axes = {**{name: open_axes for name in inputs}, "logits": of_logits}
        torch.onnx.export(module, dynamo=False, opset_version=17, dynamic_axes=axes, **common)
    else:
        shapes = ({axis: torch.export.Dim.DYNAMIC for axis in open_axes},) * len(inputs)
        torch.onnx.export(module, dynamo=True, external_data=False, dynamic_shapes=(shapes,), **common)


if __name__ == "__main__":
    main()
