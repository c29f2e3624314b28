"""Loads PEFT folders with PEFT, runs them, and compares.

    python check.py TASKS.json

A task of kind `load` has a model's folder, an adapter folder, and our outputs: it gives the largest
difference of PEFT's outputs to ours, of PEFT's outputs after merge_and_unload, and the keys that PEFT
misses. A task of kind `combine` has two adapter folders and our combination of them: it gives the largest
difference of any ΔW to that of PEFT's add_weighted_adapter, as a share of the largest number in it.
Prints a line of JSON for each task.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig


def base_model(folder):
    config = AutoConfig.from_pretrained(Path(folder) / "torch")
    architecture = getattr(transformers, config.architectures[0])
    return architecture.from_pretrained(Path(folder) / "torch", attn_implementation="eager").eval()


def run(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def largest(difference):
    return difference.abs().max().item()


def load(task):
    inputs = load_file(Path(task["model"]) / "inputs.safetensors")
    ours = load_file(task["outputs"])["logits"]
    base = run(base_model(task["model"]), inputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base_model(task["model"]), task["folder"]).eval()
    logits = run(model, inputs)
    merged = run(model.merge_and_unload(), inputs)
    told = [str(warning.message) for warning in caught]
    return {
        "maxAbsDiff": largest(logits - ours),
        "mergedMaxAbsDiff": largest(merged - ours),
        "largestOutput": largest(ours),
        "effect": largest(ours - base),
        "missing": [text for text in told if "missing adapter keys" in text],
    }


def deltas(model, adapter):
    return {
        name: module.get_delta_weight(adapter)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and adapter in module.lora_A
    }


def combine(task):
    model = PeftModel.from_pretrained(base_model(task["model"]), task["folders"][0], "first")
    model.load_adapter(task["folders"][1], "second")
    model.load_adapter(task["combined"], "ours")
    # In float32 PEFT's decomposition is less exact than ours.
    model.double()
    options = {"combination_type": task["type"]}
    if task.get("rank"):
        options["svd_rank"] = task["rank"]
    if task.get("density"):
        options["density"] = task["density"]
    model.add_weighted_adapter(["first", "second"], task["weights"], "theirs", **options)
    ours, theirs = deltas(model, "ours"), deltas(model, "theirs")
    assert ours.keys() == theirs.keys()
    scale = max(largest(delta) for delta in theirs.values())
    return {"maxDiff": max(largest(ours[name] - theirs[name]) for name in ours) / scale}


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for task in json.loads(Path(sys.argv[1]).read_text()):
        kinds = {"load": load, "combine": combine}
        print(json.dumps({"name": task["name"], **kinds[task["kind"]](task)}), flush=True)


if __name__ == "__main__":
    main()
