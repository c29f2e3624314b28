"""Small PyTorch models with random weights, for both sides: folders that from_pretrained reads, and ONNX.

    python models.py FOLDER

FOLDER/<name>/{model.onnx, inputs.safetensors, torch/}. `bert-wrapped` is exported inside a module of
another name, as many export scripts do it; `llama` has projections that are not square, and comes from
the current exporter. FOLDER/bert/saved is an adapter of PEFT with a classifier and biases of its own,
FOLDER/bert/dora one of DoRA.
"""

import copy
import sys
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

ROWS, LENGTH, VOCABULARY = 3, 9, 101


class Logits(torch.nn.Module):
    """Takes its inputs by position and gives one tensor, as an exporter wants it."""

    def __init__(self, model, attribute):
        super().__init__()
        self.attribute = attribute
        setattr(self, attribute, model)

    def forward(self, input_ids, attention_mask):
        model = getattr(self, self.attribute)
        return model(input_ids=input_ids, attention_mask=attention_mask).logits


def models():
    eager = {"attn_implementation": "eager", "vocab_size": VOCABULARY}
    bert = BertConfig(
        **eager, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96
    )
    gpt2 = GPT2Config(**eager, n_embd=64, n_layer=2, n_head=4, use_cache=False)
    llama = LlamaConfig(
        **eager,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        use_cache=False,
    )
    return {
        "bert": (BertForSequenceClassification(bert), "model", False),
        "bert-wrapped": (BertForSequenceClassification(bert), "inner", False),
        "gpt2": (GPT2LMHeadModel(gpt2), "model", False),
        "llama": (LlamaForCausalLM(llama), "model", True),
    }


def batch():
    ids = torch.randint(1, VOCABULARY, (ROWS, LENGTH))
    mask = torch.ones(ROWS, LENGTH, dtype=torch.int64)
    mask[0, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def randomise(model):
    """Exporters merge tensors that are equal, as untrained biases are."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.05 * torch.randn_like(parameter)


def export(model, attribute, dynamo, inputs, path):
    axes = {0: "batch", 1: "sequence"}
    names = list(inputs)
    options = (
        {"dynamo": True, "external_data": False, "dynamic_shapes": tuple(axes for _ in names)}
        if dynamo
        else {"dynamo": False, "opset_version": 17, "dynamic_axes": {name: axes for name in names}}
    )
    torch.onnx.export(
        Logits(model, attribute).eval(),
        tuple(inputs.values()),
        path,
        input_names=names,
        output_names=["logits"],
        **options,
    )


def save_adapter(model, folder, **options):
    """An adapter of PEFT itself, with random numbers in everything that it trains."""
    config = LoraConfig(r=4, target_modules=["query", "value"], **options)
    peft = get_peft_model(copy.deepcopy(model), config)
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad and "magnitude" in name:
            parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
        elif parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    peft.save_pretrained(folder)


def main():
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, (model, attribute, dynamo) in models().items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True)
        randomise(model)
        model.eval().save_pretrained(folder / "torch")
        inputs = batch()
        save_file(inputs, folder / "inputs.safetensors")
        export(model, attribute, dynamo, inputs, folder / "model.onnx")
        if name == "bert":
            save_adapter(model, folder / "saved", modules_to_save=["classifier"], bias="lora_only")
            save_adapter(model, folder / "dora", use_dora=True)


if __name__ == "__main__":
    main()
