"""Train a small convolutional network on real handwritten digits, save it, load it, use it."""

import nbnet as nb

(x, y), (x_test, y_test), names = nb.datasets.load("digits")  # (N, 8, 8, 1) uint8: scaled to [0, 1] batch by batch

model = nb.Sequential(
    [
        nb.Conv2D(16, 3, use_bias=False),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.MaxPool2D(2),
        nb.Conv2D(32, 3, use_bias=False),
        nb.BatchNorm(),
        nb.ReLU(),
        nb.MaxPool2D(2),
        nb.Flatten(),
        nb.Dropout(0.25),
        nb.Dense(10),
    ]
)
model.build((8, 8, 1), backend="parallel", seed=0)
model.summary()

trainer = nb.Trainer(model, loss="softmax_cross_entropy", optimizer=nb.Adam(1e-2), schedule="one_cycle")
trainer.fit((x, y), epochs=20, batch_size=64, validation=(x_test, y_test))
print(f"test accuracy {trainer.evaluate(x_test, y_test)['accuracy']:.1%}")

model.save_weights("digits.safetensors")
model.load_weights("digits.safetensors")
print("said:", [names[i] for i in model.predict(x_test[:8]).argmax(axis=1)])
print("true:", [names[i] for i in y_test[:8]])
