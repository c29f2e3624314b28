"""Checks models with onnx.checker (full check), and runs them in onnxruntime.

    python read_models.py TASKS.json

A task has a model, a file with its inputs, and the outputs that are expected of it. Inputs that the file
does not have are slots: they get nothing, with a rank of 0. Prints a line of JSON for each task: what the
checker says, and the largest difference as a share of the largest output.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file


def check(path):
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).strip().splitlines()[0]
    return "ok"


def nothing(node):
    dtype = np.float16 if node.type == "tensor(float16)" else np.float32
    return np.zeros([dim if isinstance(dim, int) else 0 for dim in node.shape], dtype)


def run(path, given):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {node.name: given.get(f"input.{node.name}", nothing(node)) for node in session.get_inputs()}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def difference(found, expected):
    largest = max(np.abs(values).max() for values in expected.values())
    wide = {name: values.astype(np.float64) for name, values in expected.items()}
    return max(np.abs(found[name] - values).max() for name, values in wide.items()) / largest


for task in json.load(open(sys.argv[1])):
    outputs = run(task["model"], load_file(task["inputs"]))
    share = float(difference(outputs, load_file(task["expected"])))
    print(json.dumps({"checker": check(task["model"]), "difference": share}), flush=True)
