"""The twin in PyTorch of examples/cifar10_airbench.py: the same network, recipe and numbers, written the way PyTorch users write it.

python benchmarks/airbench_torch.py [--data cifar10] [--epochs 10] [--seed 0] [--activation gelu]

With GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296 malloc keeps freed memory, which makes
it faster. The recipe is that of "94% on CIFAR-10 in 3.29 seconds" (Jordan 2024), with batches of 256.
"""

import argparse
import copy
import resource
import time
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from nbnet import datasets

WIDTHS = (64, 256, 256)
BATCH, MOMENTUM, SMOOTHING, BIAS_SCALE = 256, 0.85, 0.2, 64
LR = 11.5 * BATCH / (1024 * (1 + 1 / (1 - MOMENTUM)))  # of the mean loss
DECAY = 0.0153 / 11.5
HEAD = 1 / 9  # the logits are divided by 9
FACTORS = ((0.0, 0.2), (0.23, 1.0), (1.0, 0.07))  # of the learning rate, by progress
LOOKAHEAD_EVERY, LOOKAHEAD_WEIGHT = 5, 0.5


class Network(nn.Module):
    def __init__(self, classes, activation):
        super().__init__()
        act = {"gelu": nn.GELU, "relu": nn.ReLU}[activation]
        self.whiten = nn.Conv2d(3, 24, 2)
        layers, channels = [act()], 24
        for width in WIDTHS:
            layers += [conv(channels, width), nn.MaxPool2d(2), norm(width), act(), conv(width, width), norm(width), act()]
            channels = width
        self.body = nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(channels, classes, bias=False)

    def forward(self, x):
        return self.head(self.body(self.whiten(x))) * HEAD


def conv(channels, filters):
    layer = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[: min(channels, filters)])
    return layer


def norm(channels):
    layer = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


def whiten(layer, images, eps=5e-4):
    """Filters are the eigenvectors of the patches' covariance, divided by the square root of their eigenvalues, and their negatives."""
    size = layer.kernel_size[0]
    patches = images.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * size * size)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / torch.sqrt(values + eps)).T.reshape(-1, images.shape[1], size, size)
    layer.weight.data[:] = torch.cat([filters, -filters])
    layer.weight.requires_grad = False
    layer.bias.data.zero_()


def shifted(x, pixels=2):
    """Each image moved by up to so many pixels, over the borders of its reflection."""
    n, _, height, width = x.shape
    padded = F.pad(x, (pixels,) * 4, mode="reflect")
    out = torch.empty_like(x)
    down, right = torch.randint(0, 2 * pixels + 1, (2, n))
    for i in range(2 * pixels + 1):
        for j in range(2 * pixels + 1):
            those = (down == i) & (right == j)
            out[those] = padded[those, :, i : i + height, j : j + width]
    return out


def factor(progress):
    for (left, low), (right, high) in pairwise(FACTORS):
        if progress <= right:
            return low + (high - low) * (progress - left) / (right - left)
    return FACTORS[-1][1]


def accuracy(model, x, y, tta):
    """tta: mean logits of the image, its mirror image, and both moved by a pixel up left and down right, which count half."""
    model.eval()
    hits = 0
    with torch.no_grad():
        for images, labels in zip(x.split(500), y.split(500)):
            logits = mirrored(model, images)
            if tta:
                padded = F.pad(images, (1,) * 4, mode="reflect")
                moved = [
                    mirrored(model, padded[:, :, i : i + 32, i : i + 32].contiguous(memory_format=torch.channels_last)) for i in (0, 2)
                ]
                logits = 0.5 * logits + 0.25 * (moved[0] + moved[1])
            else:
                logits = model(images)
            hits += (logits.argmax(1) == labels).sum().item()
    model.train()
    return hits / len(y)


def mirrored(model, x):
    return (model(x) + model(x.flip(3))) / 2


def train(data, epochs, seed, activation):
    torch.manual_seed(seed)
    (x, y), (x_test, y_test), names = data
    x, x_test = (torch.from_numpy(part).permute(0, 3, 1, 2).to(torch.float32) / 255 for part in (x, x_test))
    y, y_test = torch.from_numpy(y), torch.from_numpy(y_test)
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    x, x_test = ((part - mean) / std for part in (x, x_test))
    x_test = x_test.contiguous(memory_format=torch.channels_last)
    model = Network(len(names), activation).to(memory_format=torch.channels_last)
    whiten(model.whiten, x[:: -(-len(x) // 5000)])
    biases = [p for n, p in model.named_parameters() if n.endswith("bias") and p.requires_grad]
    others = [p for n, p in model.named_parameters() if not n.endswith("bias") and p.requires_grad]
    groups = [
        {"params": biases, "lr": LR * BIAS_SCALE, "base": LR * BIAS_SCALE, "weight_decay": DECAY / BIAS_SCALE},
        {"params": others, "lr": LR, "base": LR, "weight_decay": DECAY},
    ]
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    slow = copy.deepcopy([p.detach() for p in model.parameters()])
    per_epoch, step = len(x) // BATCH, 0
    first = torch.rand(len(x)) < 0.5
    began = time.perf_counter()
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for rows in order[: per_epoch * BATCH].split(BATCH):
            images = x[rows]
            flip = first[rows] ^ bool(epoch % 2)
            images[flip] = images[flip].flip(3)
            images = shifted(images).contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor(step / max(1, epochs * per_epoch - 1))
            loss = F.cross_entropy(model(images), y[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if step % LOOKAHEAD_EVERY == 0:
                with torch.no_grad():
                    for s, p in zip(slow, model.parameters()):
                        s.lerp_(p, LOOKAHEAD_WEIGHT)
                        p.copy_(s)
    seconds = time.perf_counter() - began
    return accuracy(model, x_test, y_test, False), accuracy(model, x_test, y_test, True), seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="cifar10, or a folder of images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--activation", default="gelu", choices=["gelu", "relu"])
    options = parser.parse_args()
    plain, averaged, seconds = train(datasets.open_data(options.data), options.epochs, options.seed, options.activation)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"test accuracy {plain:.2%}, with test-time augmentation {averaged:.2%}; {seconds:.1f} s of training, {memory:.0f} MiB")
