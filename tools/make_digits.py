"""Create nbnet/datasets/digits.npz from scikit-learn's load_digits, with the same bytes every time.

python -m pip install scikit-learn && python tools/make_digits.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from nbnet.preprocessing import stratified_split


def main() -> None:
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    if images.shape != (1797, 8, 8) or images.max() != 16 or not np.array_equal(images, digits.images):
        raise SystemExit(
            f"load_digits gave {images.shape} with values up to {digits.images.max()}: expected (1797, 8, 8), whole numbers up to 16"
        )
    is_test = np.zeros(len(labels), bool)
    is_test[stratified_split(labels, 0.2, seed=0)[1]] = True
    path = Path(__file__).parents[1] / "nbnet" / "datasets" / "digits.npz"
    np.savez_compressed(path, images=images, labels=labels, is_test=is_test)
    print(f"{path}: {path.stat().st_size:,} bytes, {np.sum(~is_test):,} to train, {np.sum(is_test):,} to test")


if __name__ == "__main__":
    main()
