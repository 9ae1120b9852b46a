"""Methods side by side: the law of order in one table, reasons, radii, and what does not run."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import verifier
from tests.analysis.conftest import Case
from verifier import pipeline, schedule
from verifier.analysis import compare as module
from verifier.analysis.compare import Radius, bisect, compare
from verifier.analysis.comparison import Comparison, Entry, summarise
from verifier.analysis.export import COLUMNS, as_csv, as_object, summary_objects
from verifier.analysis.plots import draw, save
from verifier.analysis.tables import as_text
from verifier.bounding.ladder import METHODS
from verifier.errors import InputError

#: rounding of bounds, and the tolerance of solvers
SLACK = 1e-4


@pytest.fixture(scope="session")
def on_crown(digits: Case) -> Comparison:
    """All methods over CROWN's boxes, where some of them prove the query and others do not."""
    return compare(digits.graph, digits.at(0.09), boxes="shared")


@pytest.fixture(scope="session")
def own(digits: Case) -> Comparison:
    return compare(digits.graph, digits.at(0.04), ["ibp", "crown-ibp", "crown", "alpha-crown"])


def bounds(comparison: Comparison, *methods: str) -> list[float]:
    found = [comparison.entry(method).bound for method in methods]
    return [bound for bound in found if bound is not None]


def test_the_law_of_order_on_shared_boxes(on_crown: Comparison):
    names = ("ibp", "crown-ibp", "alpha-crown", "triangle-lp")
    found = bounds(on_crown, *names)
    assert len(found) == len(names) and on_crown.upper is not None
    for lower, higher in zip(found, [*found[1:], on_crown.upper], strict=True):
        assert lower <= higher + SLACK
    assert all(entry.bound is not None and entry.bound <= on_crown.upper + SLACK for entry in on_crown.entries)
    (crown,), (joint,) = bounds(on_crown, "crown"), bounds(on_crown, "k-relu")
    assert crown == pytest.approx(found[1]) and joint >= crown - SLACK


def test_every_method_that_bounds_is_there_and_takes_the_shared_boxes(on_crown: Comparison):
    assert tuple(entry.method for entry in on_crown.entries) == schedule.bounding_methods()
    assert set(METHODS) <= set(schedule.bounding_methods())
    for entry in on_crown.entries:
        assert entry.boxes == "crown", entry.method
        assert [layer.width for layer in entry.layers] == [layer.width for layer in on_crown.entries[2].layers]


def test_shared_boxes_are_shared_in_one_precision(digits: Case, monkeypatch: pytest.MonkeyPatch):
    """Linear programs are solved in float64, while other methods work on a large network in float32."""
    monkeypatch.setattr(pipeline, "FLOAT64_UP_TO", 0)
    made = compare(digits.graph, digits.at(0.05), ["crown", "triangle-lp"], boxes="shared")
    crown, triangle = bounds(made, "crown", "triangle-lp")
    assert crown <= triangle and [entry.boxes for entry in made.entries] == ["crown", "crown"]
    (alone,) = bounds(compare(digits.graph, digits.at(0.05), ["crown"]), "crown")
    assert alone == pytest.approx(crown, abs=1e-3)


def test_a_query_of_two_properties_is_as_good_as_the_worse_one(digits: Case):
    parts = [digits.at(epsilon).property(10) for epsilon in (0.02, 0.05)]
    names = ("ibp", "crown", "k-relu")
    whole, worse = (compare(digits.graph, spec, names) for spec in (verifier.Query(tuple(parts)), parts[1]))
    *fixed, climbed = bounds(whole, *names)
    *expected, alone = bounds(worse, *names)
    assert fixed == pytest.approx(expected, abs=1e-6)
    assert alone - 1e-6 <= climbed == pytest.approx(alone, abs=1e-2)  # steps go on while any property's rows gain
    assert [entry.verified for entry in whole.entries] == [entry.verified for entry in worse.entries]
    assert whole.upper == pytest.approx(worse.upper, abs=0.05) and whole.reference == pytest.approx(worse.reference)


def test_a_graph_without_a_file_is_compared_but_not_falsified(digits: Case):
    made = compare(replace(digits.graph, file=None), digits.at(0.3), ["ibp"])
    assert not made.falsified and made.upper is not None and made.upper < 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_6x100", "mnist_convsmall"])
def test_the_law_of_order_on_public_networks(shared: Path, name: str):
    graph = verifier.load(shared / "eran" / f"{name}.onnx")
    random = np.random.default_rng(5)
    x = random.uniform(size=graph.input_shape)
    prop = verifier.robustness(x, 0, epsilon=0.01)
    names = ("ibp", "crown", "alpha-crown", "triangle-lp")
    made = compare(graph, prop, names, boxes="shared")
    found = bounds(made, *names)
    assert len(found) == len(names) and made.upper is not None
    size = abs(found[-1]) + abs(made.upper)
    for lower, higher in zip(found, [*found[1:], made.upper], strict=True):
        assert lower <= higher + 1e-5 * size


def test_the_attack_does_not_stop_at_zero(digits: Case):
    made = compare(digits.graph, digits.at(0.3), ["ibp"])
    assert made.falsified and made.counterexample is not None
    assert made.upper is not None and made.upper < -1


def test_boxes_of_their_own_are_ordered_by_width(own: Comparison):
    widths = [entry.width for entry in own.entries]
    assert all(width is not None for width in widths)
    assert widths[0] == widths[1] == 1 and widths[2] < 1 and widths[3] <= widths[2]  # type: ignore[operator]
    assert [entry.boxes for entry in own.entries] == ["own"] * 4


def test_the_gap_runs_from_ibp_to_the_attack(own: Comparison):
    assert own.entry("ibp").gap_closed == 0 and own.reference == own.entry("ibp").bound
    shares = [entry.gap_closed for entry in own.entries if entry.gap_closed is not None]
    assert shares == sorted(shares) and len(shares) == 4 and shares[-1] < 1


def test_the_bound_is_the_one_of_bounds(digits: Case, own: Comparison):
    prop = digits.at(0.04)
    for method in ("ibp", "crown"):
        (margins,) = verifier.bounds(digits.graph, prop, method=method)
        assert own.entry(method).bound == pytest.approx(float(margins.min()))
        assert own.entry(method).verified == bool((margins > 0).all())


def test_a_method_that_cannot_run_gives_its_reason(digits: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(name: str):
        def method(problem, options, deadline):
            if name == "crown":
                raise InputError("net", "its linear program would have 12 columns, and 3 are allowed", "choose less")
            return METHODS[name](problem, options, deadline)

        return method

    monkeypatch.setattr(pipeline, "bounding", refuse)
    made = compare(digits.graph, digits.at(0.05), ["ibp", "crown"], radius=Radius(digits.at, 0.05, 0.05))
    entry = made.entry("crown")
    assert entry.bound is None and not entry.verified and entry.certified_epsilon is None
    assert entry.reason == "its linear program would have 12 columns, and 3 are allowed"
    assert entry.reason in str(made)
    save([made], tmp_path / "c.svg")  # and the picture goes without it


def test_memory_that_runs_out_is_a_reason(digits: Case, monkeypatch: pytest.MonkeyPatch):
    honest = module.evidence

    def starve(graph, prop, method, *rest, **options):
        if method == "crown":
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return honest(graph, prop, method, *rest, **options)

    monkeypatch.setattr(module, "evidence", starve)
    assert compare(digits.graph, digits.at(0.05), ["crown"]).entry("crown").reason == "memory did not suffice"


def test_a_bug_is_no_reason(digits: Case, monkeypatch: pytest.MonkeyPatch):
    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(module._Comparing, "by_bounds", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        compare(digits.graph, digits.at(0.05), ["crown"])


def test_the_time_limit_reaches_the_methods(digits: Case):
    entry = compare(digits.graph, digits.at(0.05), ["alpha-crown"], timeout=1e-6).entry("alpha-crown")
    assert entry.reason == "stopped at the time limit" and entry.bound is not None


def test_a_search_is_a_method_too(digits: Case):
    made = compare(digits.graph, digits.at(0.05), ["ibp", "branch-and-bound"], boxes="shared")
    entry = made.entry("branch-and-bound")
    assert entry.verified and entry.layers == () and entry.rows is None and entry.boxes == "own"


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"methods": ["ibp", "magic"]}, "magic"),
        ({"methods": []}, "--methods"),
        ({"methods": ["ibp", "ibp"]}, "twice"),
        ({"boxes": "auto"}, "--boxes"),
        ({"methods": ["ibp"], "boxes": "k-relu"}, "cuts"),
    ],
)
def test_bad_requests_are_refused(digits: Case, arguments: dict, place: str):
    with pytest.raises(InputError, match=place):
        compare(digits.graph, digits.at(0.05), **arguments)


def test_radii_are_bracketed(digits: Case):
    made = compare(digits.graph, digits.at(0.02), ["ibp", "crown"], radius=Radius(digits.at, 0.02, 0.002))
    for entry in made.entries:
        radius = entry.certified_epsilon
        assert radius is not None and radius > 0
        proved, refused = (
            compare(digits.graph, digits.at(e), [entry.method]).entry(entry.method).verified
            for e in (radius, radius + 0.002)
        )
        assert proved and not refused


@pytest.mark.parametrize(("truth", "start"), [(0.3, 0.1), (0.3, 5.0), (0.004, 0.1)])
def test_bisection_ends_at_the_truth(truth: float, start: float):
    tried: list[float] = []

    def proves(x: float) -> bool:
        tried.append(x)
        return x <= truth

    found = bisect(proves, start, 0.01)
    assert truth - 0.01 <= found <= truth and (found == 0 or found in tried)
    assert bisect(lambda x: True, 1.0, 0.1) > 1000


def test_json_and_csv_have_their_fields(own: Comparison, on_crown: Comparison):
    made = json.loads(json.dumps(as_object(on_crown), allow_nan=False))
    assert set(made) == {"upper_bound", "falsified", "counterexample", "reference", "methods"}
    fields = set(COLUMNS) - {"upper_bound", "falsified"} | {"layers"}
    assert all(set(entry) == fields for entry in made["methods"])
    assert set(made["methods"][0]["layers"][0]) == {"name", "label", "neurons", "width", "quartiles", "area", "joint"}
    rows = list(csv.DictReader(io.StringIO(as_csv([own, own], [{"index": 3}, {"index": 4}]))))
    assert [row["index"] for row in rows] == ["3"] * 4 + ["4"] * 4
    assert tuple(rows[0])[1 : 1 + len(COLUMNS)] == COLUMNS and "width relu 2" in rows[0] and "area relu 1" in rows[0]
    assert float(rows[1]["bound"]) == own.entry("crown-ibp").bound and rows[0]["verified"] in ("true", "false")
    assert [row["method"] for row in summary_objects([own, own])] == ["ibp", "crown-ibp", "crown", "alpha-crown"]


def test_the_summary_counts(own: Comparison):
    failed = Comparison((Entry("ibp", reason="too large"), *own.entries[1:]), own.upper, None, own.reference)
    first, _, crown, _ = summarise([own, failed])
    assert (first.queries, first.bounded, first.verified) == (2, 1, int(own.entry("ibp").verified))
    assert crown.verified == 2 and crown.gap_closed == pytest.approx(own.entry("crown").gap_closed)


def test_the_text_has_every_method_and_the_attack(own: Comparison):
    text = as_text([own, own])
    assert all(text.count(f"\n {entry.method} ") == 3 for entry in own.entries)
    assert "attack" in text and "2 queries, 0 of them falsified" in text


def test_the_picture_has_three_panels_and_is_written(own: Comparison, on_crown: Comparison, tmp_path: Path):
    figure = draw([on_crown, on_crown], "two")
    assert [axes.get_title(loc="left").split(":")[0].split(";")[0] for axes in figure.axes] == [
        "Bound against time",
        "Waterfall",
        "Width of each activation's input",
    ]
    save([own], tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
