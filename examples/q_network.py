"""Deep Q-learning on a grid world: a network learns how to walk to the goal from the rewards alone   (Mnih et al. 2015).

Only the value of the action that was taken has a gradient: the loop puts it there.
"""

import copy

import numpy as np

import nbnet as nb

GRID = np.array([list(row) for row in ("......", ".####.", "....#.", ".##.#.", ".#..#.", ".#.##G")])
FREE = [tuple(cell) for cell in np.argwhere(GRID != "#")]
GOAL = tuple(np.argwhere(GRID == "G")[0])
MOVES, ARROWS = ((-1, 0), (0, 1), (1, 0), (0, -1)), "^>v<"
DISCOUNT, STEPS = 0.9, 5000
rng = np.random.default_rng(0)


def walk(cell, action):
    """The next cell: the same one if a wall or the border is in the way."""
    after = cell[0] + MOVES[action][0], cell[1] + MOVES[action][1]
    return after if after in FREE else cell


def picture(cells):
    """What the network sees: (N, 6, 6, 2), where it is and where the walls are."""
    x = np.zeros((len(cells), *GRID.shape, 2), np.float32)
    x[(np.arange(len(cells)), *np.transpose(cells), 0)] = 1
    x[..., 1] = GRID == "#"
    return x


def fewest_steps():
    """From each cell to the goal, by breadth-first search."""
    steps, border = {GOAL: 0}, [GOAL]
    for cell in border:
        for near in {walk(cell, action) for action in range(4)} - set(steps):
            steps[near] = steps[cell] + 1
            border.append(near)
    return steps


model = nb.Sequential([nb.Conv2D(16, 3), nb.ReLU(), nb.Flatten(), nb.Dense(64), nb.ReLU(), nb.Dense(4)])
model.build((*GRID.shape, 2), seed=0)
optimizer, loss = nb.Adam(), nb.losses.Huber()
memory, cell = [], FREE[0]
for step in range(STEPS):
    if step % 100 == 0:
        target_model = copy.deepcopy(model)
    explore = rng.random() < max(0.3, 1 - step / 2000)
    action = int(rng.integers(4)) if explore else int(model.predict(picture([cell])).argmax())
    after = walk(cell, action)
    memory.append((cell, action, after))
    restart = after == GOAL or rng.random() < 0.05
    cell = FREE[rng.integers(len(FREE) - 1)] if restart else after  # the goal is the last cell
    if len(memory) < 64:
        continue
    before, actions, later = zip(*(memory[i] for i in rng.integers(len(memory), size=64)))
    reached = np.array([place == GOAL for place in later])
    value = np.where(reached, 1, DISCOUNT * target_model.predict(picture(later)).max(axis=1))
    q, tape = model.forward(picture(before), train=True)
    taken = np.arange(64), np.array(actions)
    gradient = np.zeros_like(q)
    gradient[taken] = loss(q[taken][:, None], value[:, None]).gradient[:, 0]
    model.backward(gradient, tape, need_dx=False)
    optimizer.step(model.params, model.backend, lr=2e-3 * (1 - step / STEPS))

policy = {cell: int(best) for cell, best in zip(FREE, model.predict(picture(FREE)).argmax(axis=1))}
fewest, shortest = fewest_steps(), 0
for cell, steps in fewest.items():
    for _ in range(steps):
        cell = walk(cell, policy[cell])
    shortest += cell == GOAL
for y, row in enumerate(GRID):
    print("".join(ARROWS[policy[y, x]] if mark == "." else mark for x, mark in enumerate(row)))
print(f"the fewest steps to the goal from {shortest} of {len(FREE)} cells")
