"""The dense layer in NumPy: the definition. See the contract in `nbnet.kernels.dense`."""


def forward(x, weight, bias, y):
    y[:] = x @ weight + bias


def backward_data(dy, weight, turned, dx):
    dx[:] = dy @ weight.T


def backward_weights(x, dy, dweight, dbias):
    dweight[:] = x.T @ dy
    dbias[:] = dy.sum(axis=0)
