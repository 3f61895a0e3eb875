"""A progress bar that records its calls, in place of nbnet.progress.Bar."""


class Bar:
    made = []

    def __init__(self, total, columns, *title, stream=None):
        self.total, self.words, self.updates = total, (columns, *title), []
        Bar.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self, done, *text, **words):
        self.updates.append((done, *text, *words.values()))
