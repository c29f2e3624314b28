"""Checks ONNX files with onnx.checker (full check: types and shapes too) and loads them in ONNX Runtime.

    python check.py LIST.json

Prints a line of JSON for each path of the list: what the checker and the runtime say against it, if anything.
"""

import json
import sys
from pathlib import Path

import onnx
import onnxruntime


def problem(run):
    try:
        run()
    except Exception as error:  # noqa: BLE001: whatever they say is the result
        return str(error).splitlines()[0][:300]
    return None


def load(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    for path in json.loads(Path(sys.argv[1]).read_text()):
        checker = problem(lambda: onnx.checker.check_model(path, full_check=True))
        print(json.dumps({"checker": checker, "runtime": problem(lambda: load(path))}), flush=True)
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    print(json.dumps(versions))


if __name__ == "__main__":
    main()
