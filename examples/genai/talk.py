"""The same answers by onnxruntime-genai: of the tuned folder, and of the base with the adapter in its slots.

pip install onnxruntime-genai && python examples/genai/talk.py out/genai
"""

import os
import sys

import onnxruntime_genai as og

OUT = sys.argv[1]
QUESTION = "Where is my parcel?"


def answer(folder, adapter=None):
    model = og.Model(os.path.join(OUT, folder))
    tokenizer = og.Tokenizer(model)
    prompt = tokenizer.encode(f"<|user|>{QUESTION}</s><|assistant|>")
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=100, do_sample=False)
    generator = og.Generator(model, params)
    if adapter is not None:
        adapters = og.Adapters(model)
        adapters.load(os.path.join(OUT, adapter), "shop")
        generator.set_active_adapter(adapters, "shop")
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
    return tokenizer.decode(generator.get_sequence(0)[len(prompt):])


print("tuned:", answer("tuned"))
print("slots, adapter:", answer("slots", "shop.onnx_adapter"))
