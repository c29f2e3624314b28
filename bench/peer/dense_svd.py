"""What one would write by hand: the difference of two weights, its SVD by NumPy, the largest singular values.

    python dense_svd.py BASE TUNED SIZE RANK LAYERS

The folders hold model.onnx.data with square float32 weights one behind the other. Prints milliseconds for
all layers together, the relative error, and the most memory that the process ever had.
"""

import json
import resource
import sys
import time

import numpy as np

base, tuned, size, rank, layers = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
read = lambda folder: np.memmap(f"{folder}/model.onnx.data", np.float32, "r").reshape(-1, size, size)
left = captured = 0.0
start = time.perf_counter()
before, after = read(base), read(tuned)
for layer in range(layers):
    u, s, v = np.linalg.svd(after[layer] - before[layer], full_matrices=False)
    a, b = u[:, :rank] * np.sqrt(s[:rank]), np.sqrt(s[:rank])[:, None] * v[:rank]
    left += float((s[rank:].astype(np.float64) ** 2).sum())
    captured += float((s[:rank].astype(np.float64) ** 2).sum())
print(
    json.dumps(
        {
            "ms": 1000 * (time.perf_counter() - start),
            "layers": layers,
            "error": (left / (left + captured)) ** 0.5,
            "maxRss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    )
)
