"""Networks as estimators of scikit-learn: `pip install 'nbnet[sklearn]'`."""

from nbnet.errors import ExtraError

try:
    from sklearn.utils.validation import validate_data as _needed  # since scikit-learn 1.6  # noqa: F401
except ImportError as error:
    raise ExtraError(f"nbnet.sklearn needs scikit-learn 1.6 or later ({error}): pip install 'nbnet[sklearn]'") from None

from nbnet.sklearn.estimators import CNNClassifier, CNNRegressor

__all__ = ["CNNClassifier", "CNNRegressor"]
