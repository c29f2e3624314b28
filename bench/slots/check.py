"""Adapters of onnx-lora in ONNX Runtime for Python: slots with defaults, LoraAdapter, AdapterFormat.

    python check.py CASES.json      # prints what was found, as JSON

Every case: {base, slotted, adapters: [{file, patched}], inputs: {name: {dtype, dims, values}}}.
"""
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def difference(found, expected):
    return max(float(np.abs(f.astype(np.float64) - e).max()) for f, e in zip(found, expected))


def largest(outputs):
    return max(float(np.abs(o.astype(np.float64)).max()) for o in outputs)


def rewritten(path):
    """The adapter as ONNX Runtime writes what it read."""
    read = ort.AdapterFormat.read_adapter(path)
    written = ort.AdapterFormat()
    written.set_adapter_version(read.get_adapter_version())
    written.set_model_version(read.get_model_version())
    written.set_parameters(read.get_parameters())
    copy = str(Path(tempfile.mkdtemp()) / "copy.onnx_adapter")
    written.export_adapter(copy)
    return copy, [read.get_format_version(), len(read.get_parameters())]


def check(case):
    feeds = {
        name: np.array(one["values"], dtype=one["dtype"]).reshape(one["dims"])
        for name, one in case["inputs"].items()
    }
    base = session(case["base"]).run(None, feeds)
    slotted = session(case["slotted"])
    result = {"name": case["name"], "empty": difference(slotted.run(None, feeds), base), "adapters": []}
    for adapter in case["adapters"]:
        expected = session(adapter["patched"]).run(None, feeds)
        loaded = ort.LoraAdapter()
        loaded.Load(adapter["file"])
        options = ort.RunOptions()
        options.add_active_adapter(loaded)
        found = slotted.run(None, feeds, options)
        copy, [version, parameters] = rewritten(adapter["file"])
        result["adapters"].append({
            "name": adapter["name"],
            "formatVersion": version,
            "parameters": parameters,
            "effect": difference(found, base) / largest(base),
            "difference": difference(found, expected) / largest(expected),
            "copy": copy,
        })
    result["emptyAgain"] = difference(slotted.run(None, feeds), base)
    return result


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps({"onnxruntime": ort.__version__, "cases": [check(case) for case in cases]}))
