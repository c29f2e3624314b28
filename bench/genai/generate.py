"""The likeliest tokens by onnxruntime-genai: of a folder, or of a folder with an adapter in its slots.

python generate.py RUNS.json  ->  JSON: its version, and the tokens of each run
"""

import json
import sys

import onnxruntime_genai as og

with open(sys.argv[1]) as file:
    task = json.load(file)


def tokens_of(run):
    model = og.Model(run["folder"])
    ids = og.Tokenizer(model).encode(task["prompt"])
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + task["tokens"], do_sample=False)
    generator = og.Generator(model, params)
    if "adapter" in run:
        adapters = og.Adapters(model)
        adapters.load(run["adapter"], "adapter")
        generator.set_active_adapter(adapters, "adapter")
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]


print(json.dumps(dict(version=og.__version__, tokens=[tokens_of(run) for run in task["runs"]])))
