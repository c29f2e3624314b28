"""Tiny Llama-like models with a tokenizer and a PEFT adapter, built into folders by onnxruntime-genai.

python make.py FOLDER PROMPT  ->  JSON: the cases, each with its folder, its adapter, and PEFT's tokens
"""

import contextlib
import json
import os
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

BUILDER = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
TOKENS = 24
CORPUS = ["where is my parcel", "it left our house today", "how do I send it back", "write to us and print the label"]
SPECIAL = ["<pad>", "<s>", "</s>"]


def tokenizer_at(folder):
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    made.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    made.save_pretrained(folder)
    return made


def model_at(folder, kind):
    sizes = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    ids = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=128, tie_word_embeddings=False)
    configs = dict(llama=transformers.LlamaConfig, phi3=transformers.Phi3Config)
    more = dict(num_key_value_heads=2) if kind == "llama" else dict(original_max_position_embeddings=128, sliding_window=None)
    torch.manual_seed(11)
    # Far from ties, or rounding would decide between tokens.
    config = configs[kind](**sizes, **ids, **more, initializer_range=0.12)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    model.save_pretrained(folder)
    return model


def adapted(model, folder):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    made = peft.get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(12)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.12
    made.save_pretrained(folder)
    return made


def main(root, prompt):
    cases = []
    for kind in ("llama", "phi3"):
        source, adapter = os.path.join(root, f"hf-{kind}"), os.path.join(root, f"peft-{kind}")
        tokenizer = tokenizer_at(source)
        model = model_at(source, kind)
        for precision in ("fp32", "int4"):
            folder = os.path.join(root, f"{kind}-{precision}")
            words = ["-i", source, "-o", folder, "-p", precision, "-c", os.path.join(root, "cache")]
            subprocess.run([*BUILDER, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            cases.append(dict(name=f"{kind} {precision}", folder=folder, adapter=adapter))
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        found = adapted(model, adapter).generate(**ids, max_new_tokens=TOKENS, do_sample=False)[0].tolist()
        cases[-2]["peft"] = found
    return cases


with contextlib.redirect_stdout(sys.stderr):
    made = main(*sys.argv[1:])
print(json.dumps(made))
