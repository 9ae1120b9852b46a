"""Which pictures come of which requests, and how they are drawn."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
import torch

from tests.analysis.pictures.cases import chain, toy
from verifier.analysis.pictures.drawing import draw
from verifier.analysis.pictures.marks import COLOURS, ROLES
from verifier.analysis.pictures.page import document, page
from verifier.analysis.pictures.plane import area
from verifier.analysis.pictures.view import KINDS, SHARES, ViewOptions, view
from verifier.errors import InputError
from verifier.specs.property import Property
from verifier.specs.region import Box, LpBall

QUICK = ("ibp", "crown")


def kinds(films) -> list[str]:
    return [film.still.key for film in films]


def test_all_pictures_and_some():
    assert kinds(view(*toy(), ViewOptions(methods=QUICK))) == list(KINDS)
    assert kinds(view(*toy(), ViewOptions(kinds=("pair",), methods=QUICK))) == ["pair"]
    titles = [film.still.title for film in view(*chain(), ViewOptions(kinds=("neuron",), neurons=(4, 1)))]
    assert titles == ["Neuron 4 of act1", "Neuron 1 of act1"]


def test_a_network_without_kinks_has_no_hulls():
    assert kinds(view(*chain("tanh"), ViewOptions(methods=QUICK))) == ["neuron", "pair", "logits", "waterfall"]


def test_a_layer_goes_by_its_name_or_its_inputs():
    for name in ("act0", "linear0"):
        (film,) = view(*chain(), ViewOptions(kinds=("pair",), layer=name, neurons=(0, 1)))
        assert film.still.title == "Inputs of neurons 0 and 1 of act0"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ("portrait",)}, "portrait"),
        ({"layer": "act7"}, "choose one of act0, act1"),
        ({"neurons": (0, 5)}, "use 0 to 4"),
        ({"neurons": (2, 2)}, "two different"),
        ({"neurons": (2,), "kinds": ("pair",)}, "needs two neurons"),
        ({"logits": (0, 3)}, "no output 3"),
        ({"logits": (1, 1)}, "twice"),
        ({"methods": ("magic",)}, "magic"),
        ({"methods": ("auto",)}, "auto"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict, said: str):
    with pytest.raises(InputError, match=said):
        view(*chain(), ViewOptions(**options))


def test_smooth_activations_have_no_hulls_to_ask_for():
    with pytest.raises(InputError, match="not piecewise linear"):
        view(*chain("tanh"), ViewOptions(kinds=("outputs",)))


def test_films_move_and_begin_with_the_still():
    still = view(*chain(), ViewOptions(methods=QUICK))
    moving = view(*chain(), ViewOptions(methods=QUICK, moving=True))
    assert kinds(still) == kinds(moving)
    for one, many in zip(still, moving, strict=True):
        assert one.still.title == many.still.title and len(many.names) == len(many.frames)
    assert [len(film.frames) for film in moving] == [5, 7, 7, len(SHARES) + 1, 1]
    assert len({frame.window for frame in moving[3].frames}) == 1


def test_svg_has_its_words_as_text():
    films = view(*toy(), ViewOptions(methods=QUICK))
    tree = ElementTree.fromstring(draw([film.still for film in films], "svg"))
    words = {"".join(text.itertext()).strip() for text in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {film.still.title for film in films} <= words
    assert {"triangle", "octagon", "k-ReLU hull", "decision boundary", "input of neuron 0", "crown", "ibp"} <= words


def test_drawings_are_the_same_each_time_and_png_is_png():
    (film,) = view(*toy(), ViewOptions(kinds=("pair",)))
    assert draw([film.still], "svg") == draw([film.still], "svg")
    assert draw([film.still], "png").startswith(b"\x89PNG\r\n")


def test_the_page_stands_alone():
    films = view(*chain(), ViewOptions(methods=QUICK, moving=True))
    text = page(films, "a network <called> & so on")
    assert "a network &lt;called&gt; &amp; so on" in text
    assert not re.search(r"""(src|href)\s*=|@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(""", text)
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}
    (line,) = [line for line in text.splitlines() if line.startswith("const DATA = ")]
    data = json.loads(line.removeprefix("const DATA = ").removesuffix(";"))
    assert data["films"] == json.loads(json.dumps(document(films)))
    roles = {mark["role"] for film in data["films"] for frame in film["frames"] for mark in frame["marks"]}
    assert set(data["roles"]) == roles <= set(data["colours"])


def test_every_role_has_a_colour_and_a_name():
    assert set(COLOURS) == set(ROLES) and len(set(COLOURS.values())) == len(COLOURS)


def test_a_single_point_can_be_drawn():
    graph, prop = chain()
    point = Property(Box(*[prop.region.enclosing_box().lower] * 2), prop.unsafe)
    films = view(graph, point, ViewOptions(methods=QUICK))
    assert kinds(films) == list(KINDS)
    assert draw([film.still for film in films], "png")


@pytest.mark.parametrize("norm", [1, 2])
def test_balls_can_be_drawn(norm: int):
    graph, prop = chain()
    box = prop.region.enclosing_box()
    center = (box.lower + box.upper) / 2
    ball = LpBall.checked(center, torch.full((1,), 0.5, dtype=torch.float64), box, norm)
    (film,) = view(graph, Property(ball, prop.unsafe), ViewOptions(kinds=("logits",), methods=QUICK, moving=True))
    areas = [area(frame.find("crown")[0]) for frame in film.frames]
    assert areas == sorted(areas) and areas[0] < areas[-1]
