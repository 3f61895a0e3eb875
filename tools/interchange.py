"""One network through PyTorch or Keras, nbnet, an ONNX file and onnxruntime, and back: python tools/interchange.py [--framework keras]

Prints the largest difference of the outputs at each step, as a part of the largest output. Needs torch or keras, onnx and onnxruntime.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import nbnet as nb

SHAPE, CLASSES = (16, 16, 3), 5


def twin():
    """The network in nbnet."""
    convolutions = [nb.Conv2D(8, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.DepthwiseConv2D(3), nb.BatchNorm(), nb.SiLU()]
    model = nb.Sequential([*convolutions, nb.Flatten(), nb.Dense(32), nb.ReLU(), nb.Dense(CLASSES)])
    model.build(SHAPE)
    return model


def of_torch(x):
    """The network in PyTorch, trained for some steps; its outputs for x, and what gives those with other weights."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    depthwise = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.SiLU()]
    network = nn.Sequential(*convolutions, *depthwise, nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    images, labels = torch.tensor(x).permute(0, 3, 1, 2), torch.arange(len(x)) % CLASSES
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    def outputs():
        with torch.no_grad():
            return network.eval()(images).numpy()

    def back(model):
        network.load_state_dict(nb.convert.to_torch(model, network))

    return network, outputs, back, lambda model: nb.convert.from_torch(network, model, norms="set")


def of_keras(x):
    """The same in Keras."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    convolutions = [layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(), layers.MaxPool2D(2)]
    depthwise = [layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization(), layers.Activation("silu")]
    dense = [layers.Flatten(), layers.Dense(32), layers.ReLU(), layers.Dense(CLASSES)]
    network = keras.Sequential([keras.Input(SHAPE), *convolutions, *depthwise, *dense])
    network.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(x, np.arange(len(x)) % CLASSES, epochs=10, verbose=0)
    return (
        network,
        lambda: np.asarray(network(x, training=False)),
        lambda model: nb.convert.to_keras(model, network),
        lambda model: nb.convert.from_keras(network, model, norms="set"),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", choices=["torch", "keras"], default="torch")
    options = parser.parse_args()
    import onnxruntime

    x = np.random.default_rng(0).random((64, *SHAPE), np.float32)
    network, outputs, back, into = (of_torch if options.framework == "torch" else of_keras)(x)
    original = outputs()

    def say(step, found):
        print(f"{step}: {np.abs(found - original).max() / np.abs(original).max():.1e}")

    model = twin()
    into(model)
    say(f"{options.framework} -> nbnet", model.predict(x))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        nb.onnx.export(model, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        say("-> ONNX -> onnxruntime", session.run(None, {"input": x})[0])
        loaded = nb.onnx.load(path)
        say("-> ONNX -> nbnet", loaded.predict(x))
    back(loaded)
    say(f"-> {options.framework}", outputs())


if __name__ == "__main__":
    main()
