"""Records small trained networks of PyTorch and Keras as files, and their outputs, for tests/convert/test_golden.py.

Run it in an environment with torch, keras, tensorflow and safetensors: python tests/golden/record_convert.py
It writes convert/torch.safetensors, convert/keras.keras, .weights.h5 and .h5, and convert/outputs.npz beside itself.
"""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "convert"
SHAPE = (8, 6, 1)


def trained_torch(x, y):
    torch.manual_seed(0)
    nn = torch.nn
    features = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.PReLU(8),
        nn.Conv2d(8, 6, 3, padding=1, groups=2),
    )
    head = nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    module = nn.Sequential()
    module.add_module("features", features)
    module.add_module("head", head)
    x, y = torch.tensor(np.moveaxis(x, -1, 1)), torch.tensor(y)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(30):
        loss = nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def trained_keras(x, y):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(6, 3, padding="same", activation="relu"),
            layers.Conv2DTranspose(2, 3, strides=2, padding="same", use_bias=False),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=30, verbose=0)
    twin = keras.models.clone_model(model)  # without an optimizer
    twin.set_weights(model.get_weights())
    return twin


def main():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, *SHAPE)).astype(np.float32), rng.integers(0, 3, 64)
    FOLDER.mkdir(exist_ok=True)
    module, model = trained_torch(x, y), trained_keras(x, y)
    save_file(module.state_dict(), FOLDER / "torch.safetensors")
    for ending in (".keras", ".h5"):
        model.save(FOLDER / f"keras{ending}")
    model.save_weights(FOLDER / "keras.weights.h5")
    with torch.no_grad():
        of_torch = module(torch.tensor(np.moveaxis(x[:4], -1, 1))).numpy()
    np.savez(FOLDER / "outputs.npz", x=x[:4], torch=of_torch, keras=model(x[:4], training=False).numpy())


if __name__ == "__main__":
    main()
