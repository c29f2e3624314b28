"""Adapters of PEFT for small models with random weights, and what they compute in PyTorch.

    python make.py FOLDER

FOLDER/<case>/{torchscript.onnx, dynamo.onnx, inputs.safetensors, expected.safetensors, adapter/}. A graph
is missing where its exporter does not know the model.
"""

import contextlib
import sys
import warnings
from pathlib import Path

import torch
import transformers as t
from peft import GraloraConfig, LoraConfig, get_peft_model
from safetensors.torch import save_file

SIZES = {"vocab_size": 53, "num_hidden_layers": 2, "intermediate_size": 48, "hidden_size": 32}
HEADS = {"num_attention_heads": 4, "attn_implementation": "eager"}
IDS = torch.randint(0, 53, (2, 7), generator=torch.Generator().manual_seed(0))
MASKED = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
CAUSAL = {**SIZES, **HEADS, "use_cache": False, "max_position_embeddings": 32}


def bert():
    return t.BertForSequenceClassification(t.BertConfig(**SIZES, **HEADS, num_labels=3)), MASKED


def distilbert():
    config = t.DistilBertConfig(vocab_size=53, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
    return t.DistilBertForSequenceClassification(config), MASKED


def gpt2():
    config = t.GPT2Config(vocab_size=53, n_embd=32, n_layer=2, n_head=4, use_cache=False)
    return t.GPT2LMHeadModel(config), {"input_ids": IDS}


def llama(tied=True):
    config = t.LlamaConfig(**CAUSAL, num_key_value_heads=2, tie_word_embeddings=tied)
    return t.LlamaForCausalLM(config), {"input_ids": IDS}


def neox():
    return t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**CAUSAL)), {"input_ids": IDS}


def phi3():
    config = t.Phi3Config(**CAUSAL, num_key_value_heads=2, pad_token_id=0)
    return t.Phi3ForCausalLM(config), {"input_ids": IDS}


def t5():
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    config = t.T5Config(vocab_size=53, use_cache=False, **sizes)
    return t.T5ForConditionalGeneration(config), {**MASKED, "decoder_input_ids": IDS[:, :5]}


class Convolutions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.expand = torch.nn.Conv2d(3, 16, 1)
        self.depthwise = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.fc = torch.nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.depthwise(torch.relu(self.expand(x)))).mean((2, 3)))


def convolutions():
    return Convolutions(), {"x": torch.linspace(-1, 1, 2 * 3 * 64).sin().reshape(2, 3, 8, 8)}


def lora(*targets, **options):
    return LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), **options)


def gralora(*targets, **options):
    return GraloraConfig(alpha=16, target_modules=list(targets), **options)


GPT2 = {"fan_in_fan_out": True}
PATTERNS = {
    "rank_pattern": {r"layer\.1\..*(query|key)": 2, "value": 6},
    "alpha_pattern": {"query": 3},
}
CASES = {
    "bert-rslora-patterns": (bert, lora("query", "key", "value", use_rslora=True, **PATTERNS)),
    "bert-dora": (bert, lora("query", "dense", use_dora=True)),
    "bert-bias-all": (bert, lora("query", "value", bias="all")),
    "bert-lora-bias": (bert, lora("query", "dense", lora_bias=True)),
    "bert-embedding": (bert, lora("query", "word_embeddings", modules_to_save=["classifier"])),
    "distilbert-saved": (distilbert, lora("q_lin", modules_to_save=["pre_classifier"])),
    "gpt2-dora": (gpt2, lora("c_attn", "c_fc", use_dora=True, **GPT2)),
    "gpt2-saved": (gpt2, lora("c_attn", modules_to_save=["c_fc"], **GPT2)),
    "gpt2-gralora": (gpt2, gralora("c_attn", "c_fc", r=8, gralora_k=4, hybrid_r=4, **GPT2)),
    "llama-gralora": (llama, gralora("q_proj", "k_proj", "down_proj", r=8, gralora_k=2)),
    "llama-tied-embedding": (llama, lora("q_proj", "embed_tokens")),
    "llama-tied-head": (llama, lora("q_proj", "lm_head")),
    "llama-saved": (lambda: llama(False), lora("q_proj", modules_to_save=["lm_head"])),
    "gptneox": (neox, lora("query_key_value", "dense")),
    "phi3": (phi3, lora("qkv_proj", "gate_up_proj")),
    "t5": (t5, lora("q", "v", "wi", "lm_head")),
    "convolution": (convolutions, lora("expand", "fc", modules_to_save=["depthwise"])),
}


class Outputs(torch.nn.Module):
    """Takes its inputs by position and gives one tensor, as an exporter wants it."""

    def __init__(self, model, names):
        super().__init__()
        self.inner, self.names = model, names

    def forward(self, *values):
        return outputs(self.inner, dict(zip(self.names, values, strict=True)))


def outputs(model, inputs):
    result = model(**inputs)
    return result if isinstance(result, torch.Tensor) else result[0]


def perturb(model, wanted, amount):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if wanted(name, parameter):
                parameter.add_(amount * torch.randn_like(parameter))


def trained(name, parameter):
    return parameter.requires_grad and "lora_A" not in name and "lora_embedding_B" not in name


def make(folder, build, config):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model, inputs = build()
    model.eval()
    # Weights that start out equal are one to an exporter.
    perturb(model, lambda name, _: "norm" in name.lower() or name.endswith("bias"), 0.05)
    for dynamo, graph in ((False, "torchscript"), (True, "dynamo")):
        names = {"input_names": list(inputs), "output_names": ["out"], "dynamo": dynamo}
        more = {"external_data": False, "verbose": False} if dynamo else {"opset_version": 17}
        wrapped, values = Outputs(model, list(inputs)), tuple(inputs.values())
        with contextlib.suppress(torch.onnx.errors.UnsupportedOperatorError):
            torch.onnx.export(wrapped, values, str(folder / f"{graph}.onnx"), **names, **more)
    adapted = get_peft_model(model, config).eval()
    perturb(adapted, trained, 0.05)
    adapted.save_pretrained(folder / "adapter")
    with torch.no_grad():
        expected = outputs(adapted, inputs)
    save_file({"out": expected.contiguous()}, folder / "expected.safetensors")
    save_file({name: value.contiguous() for name, value in inputs.items()}, folder / "inputs.safetensors")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    for case, (build, config) in CASES.items():
        make(Path(sys.argv[1]) / case, build, config)
