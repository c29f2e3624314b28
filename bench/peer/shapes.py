"""The models that both sides train: random weights, no dropout, so that a step does the same work in both.

bert   encoder with a classifier: cross-entropy of one label a sample
llama  decoder with grouped heads, SwiGLU and RMSNorm: next-token loss
vit    image encoder with a classifier: cross-entropy of one label an image
"""

from dataclasses import dataclass
from typing import Callable

import torch
import transformers as hf
from torch.nn.functional import cross_entropy


@dataclass
class Shape:
    model: type
    config: Callable
    defaults: dict  # of the options
    targets: list  # linear layers that get adapters, by the ends of their names
    inputs: Callable  # (options, rows, generator) -> tensors by name, in the order of the graph's inputs
    labels: Callable  # (options, rows, generator) -> tensor
    loss: Callable  # (logits, labels) -> scalar


def draw(high, shape, generator):
    return torch.randint(0, high, shape, generator=generator)


def next_token_loss(logits, labels):
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def one_label(options, rows, generator):
    return draw(options.labels, (rows,), generator)


def answer_labels(options, rows, generator):
    """Every position has a label, or only those of the last part, as in chats that train on answers."""
    labels = draw(options.vocabulary, (rows, options.length), generator)
    labels[:, : round(options.length * (1 - options.answers))] = -100
    return labels


def text_inputs(*extra):
    def inputs(options, rows, generator):
        shape = (rows, options.length)
        ones = {"attention_mask": torch.ones(shape, dtype=torch.int64)}
        zeros = {name: torch.zeros(shape, dtype=torch.int64) for name in extra}
        return {"input_ids": draw(options.vocabulary, shape, generator), **ones, **zeros}

    return inputs


def image_inputs(options, rows, generator):
    return {"pixel_values": torch.randn((rows, 3, 224, 224), generator=generator)}


def bert_config(options):
    return hf.BertConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=options.ffn or 4 * options.hidden,
        num_labels=options.labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def llama_config(options):
    return hf.LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=max(1, options.heads // 4),
        intermediate_size=options.ffn or 8 * options.hidden // 3 // 64 * 64,
        max_position_embeddings=4096,
        use_cache=False,
    )


def vit_config(options):
    return hf.ViTConfig(
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=options.ffn or 4 * options.hidden,
        num_labels=options.labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


SHAPES = {
    "bert": Shape(
        hf.BertForSequenceClassification,
        bert_config,
        dict(layers=6, hidden=384, heads=12, batch=8, length=128, vocabulary=30522),
        # "output.dense" is the end of attention.output.dense too, so these are all six of a layer.
        ["query", "key", "value", "intermediate.dense", "output.dense"],
        text_inputs("token_type_ids"),
        one_label,
        cross_entropy,
    ),
    "llama": Shape(
        hf.LlamaForCausalLM,
        llama_config,
        dict(layers=8, hidden=512, heads=8, batch=4, length=256, vocabulary=32000),
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        text_inputs(),
        answer_labels,
        next_token_loss,
    ),
    "vit": Shape(
        hf.ViTForImageClassification,
        vit_config,
        dict(layers=12, hidden=384, heads=6, batch=8, length=197, vocabulary=1),
        # As PEFT names them in transformers 4 (query, attention.output.dense) and 5 (q_proj, fc1).
        ["query", "key", "value", "intermediate.dense", "output.dense"]
        + ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"],
        image_inputs,
        one_label,
        cross_entropy,
    ),
}


def add_shape_options(parser):
    parser.add_argument("--shape", choices=SHAPES, default="bert")
    for name in ("layers", "hidden", "heads", "ffn", "batch", "length", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, help="default: by the shape")
    parser.add_argument("--labels", type=int, default=4, help="classes")
    parser.add_argument("--answers", type=float, default=1.0, help="share of tokens with a label")
    parser.add_argument("--seed", type=int, default=0)


def parse_shape(parser):
    options = parser.parse_args()
    for name, value in SHAPES[options.shape].defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options, SHAPES[options.shape]


def build(shape, options):
    torch.manual_seed(options.seed)
    return shape.model(shape.config(options))


def random_rows(shape, options, rows):
    generator = torch.Generator().manual_seed(options.seed + 1)
    inputs = shape.inputs(options, rows, generator)
    return {**inputs, "labels": shape.labels(options, rows, generator)}
