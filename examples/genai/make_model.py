"""Makes examples/genai/model: a tiny Llama with weights drawn at random, in 4 bits, by onnxruntime-genai's builder.

The folder is in the repository: this is only how it came to be.
pip install onnxruntime-genai torch transformers tokenizers && python make_model.py
"""

import os
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "model")
CHATS = os.path.join(os.path.dirname(FOLDER), "chats.jsonl")
SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

with tempfile.TemporaryDirectory() as source:
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train([CHATS], trainers.BpeTrainer(vocab_size=512, special_tokens=SPECIAL, initial_alphabet=alphabet))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(source)
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        tie_word_embeddings=False, initializer_range=0.06,
    )
    transformers.LlamaForCausalLM(config).float().save_pretrained(source)
    shutil.rmtree(FOLDER, ignore_errors=True)
    words = ["-i", source, "-o", FOLDER, "-p", "int4", "-e", "cpu", "-c", os.path.join(source, "cache")]
    subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", *words], check=True)
