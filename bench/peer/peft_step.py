"""Trains GraLoRA (or LoRA) adapters with PEFT and PyTorch, and times it.

    python peft_step.py [--shape bert|llama|vit] [--model FOLDER] [--data FILE.safetensors] [--log FILE.jsonl]
                        [--steps 30] [--rank 16] [--blocks 4] [--lora] [--attention eager|sdpa]
                        [--compile] [--bf16] [--device cpu|cuda] [--profile]

Without --model, shapes.py builds one; without --data, a batch is drawn. Prints one line of JSON: times
in milliseconds, memory in bytes.
"""

import time

STARTED = time.perf_counter()  # before the imports, which are part of what a user waits for

import argparse
import json
import resource
import statistics

import torch
from peft import GraloraConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file
from shapes import add_shape_options, build, parse_shape, random_rows

WARM_UP = 3


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    add_shape_options(parser)
    parser.add_argument("--model", help="folder of save_pretrained")
    parser.add_argument("--data", help="samples of all steps, taken in order and again from the start")
    parser.add_argument("--log", help="one line of JSON a step")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=4, help="PEFT's gralora_k")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lora", action="store_true", help="plain LoRA of the same rank")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused AdamW")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--device", default="cpu", help="where torch runs: cuda for a GPU")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--profile", action="store_true", help="print the most expensive operators")
    return parse_shape(parser)


def load_model(options, shape):
    if options.model is None:
        model = build(shape, options)
        model.set_attn_implementation(options.attention)
        return model
    return shape.model.from_pretrained(options.model, attn_implementation=options.attention)


def add_adapters(model, options, shape):
    common = {"r": options.rank, "target_modules": shape.targets}
    if options.lora:
        config = LoraConfig(lora_alpha=2 * options.rank, lora_dropout=0.0, **common)
    else:
        config = GraloraConfig(
            alpha=2 * options.rank, gralora_k=options.blocks, gralora_dropout=0.0, **common
        )
    return get_peft_model(model, config)


def batches(options, shape):
    samples = load_file(options.data) if options.data else random_rows(shape, options, options.batch)
    rows = len(samples["labels"])
    at = 0
    while True:
        yield {
            name: tensor[at : at + options.batch].to(options.device)
            for name, tensor in samples.items()
        }
        at = (at + options.batch) % rows


def forward(model, batch):
    return model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits


def make_step(model, options, shape):
    """One update; the loss is read every time, because both sides log it."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-4, weight_decay=0.01, fused=options.fused or None
    )
    run = torch.compile(model) if options.compile else model

    def step(batch):
        optimizer.zero_grad()
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
            loss = shape.loss(forward(run, batch), batch["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return step, sum(p.numel() for p in parameters)


def timed(work):
    start = time.perf_counter()
    result = work()
    return (time.perf_counter() - start) * 1e3, result


def spread(times):
    p25, median, p75 = statistics.quantiles(times, n=4, method="inclusive")
    return {"median": median, "p25": p25, "p75": p75}


def inference_times(model, batch, runs=10):
    with torch.no_grad():
        return [timed(lambda: forward(model, batch))[0] for _ in range(WARM_UP + runs)][WARM_UP:]


def main():
    options, shape = parse_options()
    torch.set_num_threads(options.threads)
    imported = time.perf_counter() - STARTED
    memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    imported_bytes = memory()

    model = add_adapters(load_model(options, shape), options, shape).to(options.device).train()
    step, trainable = make_step(model, options, shape)
    data = batches(options, shape)
    log = open(options.log, "w") if options.log else None
    times, losses = [], []
    for number in range(1, options.steps + 1):
        ms, loss = timed(lambda: step(next(data)))
        if number == 1:
            first_step = time.perf_counter() - STARTED
        times.append(ms)
        losses.append(loss)
        if log:
            print(json.dumps({"step": number, "loss": loss, "ms": ms}), file=log, flush=True)
    peak = memory()

    if options.profile:
        with torch.profiler.profile() as profile:
            for _ in range(5):
                step(next(data))
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
    inference = inference_times(model.unload().eval(), next(data))
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "trainable": trainable,
                "importMs": imported * 1e3,
                "firstStepMs": first_step * 1e3,
                "stepMs": spread(times[WARM_UP:]),
                "inferenceMs": spread(inference),
                "importBytes": imported_bytes,
                "peakBytes": peak,
                "loss": {"first": losses[0], "last": losses[-1]},
            }
        )
    )


if __name__ == "__main__":
    main()
