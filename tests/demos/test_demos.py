"""The demonstrations: each runs in short and leaves pictures, figures and sentences; the page holds everything."""

import base64
import importlib.util
import io
import json
import re
import warnings

import numpy as np
import pytest
from PIL import Image

from nbnet import cli, demos
from nbnet.demos import animation, convergence, deep_tanh, drawing, torch_twin

SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "gif": b"GIF89a"}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The folder of `nbnet demo --all --quick` with one seed."""
    out = tmp_path_factory.mktemp("demos")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cli.main(["demo", "--all", "--quick", "--seeds", "1", "--backend", "serial", "--out", str(out)]) == 0
    return out


def report(folder, name):
    return json.loads((folder / name / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


names = pytest.mark.parametrize("name", list(demos.DEMOS))


@names
def test_every_demo_leaves_pictures(everything, name):
    pictures = report(everything, name)["pictures"]
    assert pictures
    for picture in pictures:
        assert len(picture["caption"]) > 10
        with Image.open(everything / name / picture["file"]) as image:
            image.load()
            assert min(image.size) >= 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 8, f"{picture['file']} is blank"
            if picture["file"].endswith(".gif"):
                assert image.n_frames > 1


def test_figures_over_seeds():
    found = drawing.spread([1, 2, 6])
    assert {key: found[key] for key in ("median", "min", "max", "mean", "seeds")} == {
        "median": 2,
        "min": 1,
        "max": 6,
        "mean": 3,
        "seeds": [1, 2, 6],
    }
    assert found["deviation"] == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert drawing.spread([5])["deviation"] == 0


@names
def test_every_demo_leaves_figures(everything, name):
    found = report(everything, name)
    assert (found["demo"], found["settings"]["seeds"], found["settings"]["quick"]) == (name, 1, True)
    assert {"nbnet", "python", "numpy", "numba"} <= set(found["versions"])
    assert found["figures"]
    assert f"nbnet demo {name} --seeds 1" in found["command"]
    assert all(sentence.endswith((".", ":")) for sentence in found["summary"])
    assert any(re.search(r"\d", sentence) for sentence in found["summary"])


@names
def test_a_demo_says_what_it_is(name):
    module = demos.get(name)
    assert 15 < len(module.TITLE) < 80
    assert module.SEEDS == 5


def test_the_page_holds_everything(everything):
    page = (everything / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    expected = [everything / name / picture["file"] for name in demos.DEMOS for picture in report(everything, name)["pictures"]]
    assert len(sources) == len(expected)
    for source, path in zip(sources, expected):
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", source).groups()
        assert base64.b64decode(data) == path.read_bytes()
        assert path.read_bytes().startswith(SIGNATURES[kind])
    assert not re.findall(r'(?:href|src)="(?!#|data:)', page), "the page asks for something outside it"
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r'href="#([^"]*)"', page)) == set(demos.DEMOS) == set(re.findall(r'<section id="([^"]*)"', page))
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_escapes_what_it_is_given(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    section = cli.page.Section(
        "one", "a < b", ["x < y & z.", "caf\udce9"], [(tmp_path / "a.png", 'a "quoted" <caption>')], "nbnet demo one"
    )
    cli.page.write(tmp_path / "index.html", "c > d", "e <f>", [section], "g & h")
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    for escaped in (
        "a &lt; b",
        "c &gt; d",
        "e &lt;f&gt;",
        "g &amp; h",
        "x &lt; y &amp; z.",
        "caf?",
        "a &quot;quoted&quot; &lt;caption&gt;",
    ):
        assert escaped in text


# ------------------------------------------------------------------------------------------------- the command


def test_without_a_name_it_lists_them(capsys):
    assert cli.main(["demo"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and demos.get(name).TITLE in printed for name in demos.DEMOS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deep-tan"], "did you mean 'deep-tanh'?"),
        (["deep-tanh", "--all"], "expected a name or --all, not both"),
        (["deep-tanh", "--seeds", "0"], "--seeds 0: expected a whole number, at least 1"),
        (["deep-tanh", "--backend", "paralel"], "did you mean 'parallel'?"),
        (["deep-tanh", "--out", "file"], "cannot create the folder"),
    ],
)
def test_bad_input_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cli.main(["demo", *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_results_are_json_whatever_a_demo_returns():
    value = {1: np.float32(0.5), "a": (np.int64(3), float("nan"), np.array([1.0, np.inf])), "b": np.bool_(True)}
    assert cli.demo.plain(value) == {"1": 0.5, "a": [3, None, [1.0, None]], "b": True}


# ------------------------------------------------------------------------------------------- what they claim


def test_deep_tanh_figures(everything):
    found = report(everything, "deep-tanh")["figures"]
    for key in ("without", "with"):
        assert len(found[key]["saturated_share_by_layer"]) == len(found[key]["still_share_by_layer"]) == deep_tanh.LAYERS
        shares = [layer["median"] for part in ("saturated_share_by_layer", "still_share_by_layer") for layer in found[key][part]]
        assert 0 <= min(shares) <= max(shares) <= 1
    # Without batch norm nothing of x reaches the last layers from the first step on; with it, something always does.
    assert found["without"]["still_share_by_layer"][-1]["min"] == 1
    assert found["with"]["still_share_by_layer"][-1]["max"] < 1
    assert found["with"]["test_loss"]["max"] < found["without"]["test_loss"]["min"]


def test_deep_tanh_sees_each_layer(rng):
    model = deep_tanh.network(True)
    model.build((1,), backend="serial")
    x = rng.uniform(-7, 10, (50, 1)).astype(np.float32)
    values = deep_tanh.inside(model, x)
    assert len(values) == deep_tanh.LAYERS + 1
    assert values[0][0] is x
    for before, after in values[1:]:
        np.testing.assert_allclose(after, np.tanh(before), rtol=1e-5, atol=1e-6)


def test_deep_tanh_claims_only_what_its_figures_hold():
    def figures(plain, normed):
        layers = [drawing.spread([0.0])] * deep_tanh.LAYERS
        shares = {"saturated_share_by_layer": layers, "still_share_by_layer": layers}
        return {
            "steps": 250,
            "test_loss_of_the_mean": drawing.spread([692.0, 692.0]),
            "without": {"test_loss": drawing.spread(plain), **shares},
            "with": {"test_loss": drawing.spread(normed), **shares},
        }

    usual = deep_tanh._summary(figures([692.0, 693.0], [120.0, 150.0]))
    assert "lower with it at all 2 seeds" in usual[0]
    assert "learnt no more than that at all 2 seeds" in usual[1]
    other = " ".join(deep_tanh._summary(figures([100.0, 90.0], [120.0, 80.0])))
    assert "lower with it at 1 of 2 seeds" in other
    assert "learnt no more" not in other


def test_convergence_figures(everything):
    found = report(everything, "convergence")["figures"]
    small = found["small"]
    last = str(small["epochs"])
    assert small["with"]["train_loss_at_epoch"][last]["max"] < small["without"]["train_loss_at_epoch"][last]["min"]
    assert found["linear_fit_loss"]["median"] == pytest.approx(56 / 45, rel=0.1)  # (1 + 4 + 9) * var(u^2), u uniform in [-1, 1]
    assert found["beside_pytorch"] is None


def test_epochs_to_a_loss():
    losses = np.array([9.0, 4.0, 2.0, 3.0, 1.0])
    assert [convergence.reached(losses, level) for level in (10, 4, 2.5, 1, 0.5)] == [0, 1, 2, 4, None]


def test_convergence_compares_with_pytorch():
    pytest.importorskip("torch")
    found = convergence.beside_pytorch("serial", rounds=1, block=1)
    assert {"nbnet_without", "nbnet_with", "pytorch_without", "pytorch_with"} <= set(found)
    assert "ms a step" in torch_twin.sentences(found, 10)[0]


def test_without_pytorch_nothing_is_said_of_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert convergence.beside_pytorch("serial") is None
    assert torch_twin.sentences(None, 10) == []


def test_an_animation_keeps_its_frames(tmp_path):
    figure = drawing.figure(2, 2)
    axes = figure.subplots()
    frames = []
    for i in range(3):
        axes.plot([0, i + 1], [0, 1], color=drawing.BLUE)
        frames.append(animation.frame(figure))
    animation.save(frames, tmp_path / "a.gif", [100, 100, 900])
    with Image.open(io.BytesIO((tmp_path / "a.gif").read_bytes())) as image:
        assert image.n_frames == 3
        assert image.info["duration"] == 100


def test_cifar_cnn_figures(everything):
    found = report(everything, "cifar-cnn")["figures"]
    assert set(found["networks"]) == {"plain", "batch norm", "batch norm + dropout"}
    for each in found["networks"].values():
        assert 0 <= each["test_accuracy"]["min"] <= each["test_accuracy"]["max"] <= 1
        assert each["images_per_second"]["min"] > 0


def test_dropout_overfit_figures(everything):
    found = report(everything, "dropout-overfit")["figures"]
    losses = [found["rates"][rate]["training_loss"]["median"] for rate in ("0", "0.25", "0.5", "0.75")]
    assert losses[0] == min(losses)
    assert losses[-1] == max(losses)
    for distance in found["distance_of_mean_from_evaluation"].values():  # one over the root of the number of masks
        assert distance["median"] == pytest.approx(found["masks"] ** -0.5, rel=0.2)
    for each in found["averaging"].values():  # convexity: an ensemble is at most as wrong as its members on average
        assert each["mean_prediction"]["max"] <= each["snapshot"]["max"]


def test_feature_scaling_figures(everything):
    found = report(everything, "feature-scaling")["figures"]
    for kind in ("StandardScaler", "batch norm"):
        assert found[kind]["times_the_unscaled_rate"]["min"] >= 100
    for each in found.values():
        assert each["largest_rate"]["median"] == pytest.approx(each["rate_in_theory"]["median"], rel=0.15)


def test_moving_average_figures(everything):
    found = report(everything, "moving-average")["figures"]
    restored = found["restored"]
    assert restored["complete"]["seeds"] == restored["before"]["seeds"]
    assert restored["without moving statistics"]["max"] < restored["before"]["min"]
    assert restored["the same, recalibrated"]["min"] > restored["without moving statistics"]["max"]
    early = {name: each["after_10_updates"]["median"] for name, each in found["averages"].items()}
    assert abs(early["0.99, zero debias"] - 5) < 0.5 < 1 < abs(early["decay 0.9"] - 5) < abs(early["decay 0.99"] - 5)
    for name, (moved, trained) in {
        "training": (True, True),
        "gamma, beta fixed": (True, False),
        "moving statistics": (False, True),
        "freeze()": (False, False),
    }.items():
        assert (found["switches"][name]["moving_mean"]["min"] > 0) == moved
        assert (found["switches"][name]["gamma"]["min"] > 0) == trained
