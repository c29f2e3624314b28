"""The model that both sides train: BERT with random weights and a linear classifier on top."""

import torch
from transformers import BertConfig, BertForSequenceClassification

# "output.dense" is the end of attention.output.dense too, so these are all six of a layer.
ENCODER_LINEARS = ["query", "key", "value", "intermediate.dense", "output.dense"]
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def add_model_options(parser):
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--ffn", type=int, help="default: 4 x hidden")
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--labels", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)


def build_bert(options):
    """Without dropout, so that a step does the same work here as in a graph exported for inference."""
    torch.manual_seed(options.seed)
    config = BertConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=options.ffn or 4 * options.hidden,
        num_labels=options.labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    return BertForSequenceClassification(config)


def random_batch(options, rows, length):
    generator = torch.Generator().manual_seed(options.seed + 1)
    draw = lambda high, shape: torch.randint(0, high, shape, generator=generator)
    return {
        "input_ids": draw(options.vocabulary, (rows, length)),
        "attention_mask": torch.ones(rows, length, dtype=torch.int64),
        "token_type_ids": torch.zeros(rows, length, dtype=torch.int64),
        "labels": draw(options.labels, (rows,)),
    }
