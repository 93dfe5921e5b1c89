"""Rules: which layers are converted, and with what options."""

import re

import pytest
import torch
from torch import nn

import sizeless

INPUT = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))


def model():
    """A stem, two stages of two convolutions, and a pool."""
    stages = {
        name: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 5, padding=2))
        for name in ("one", "two")
    }
    parts = {"stem": nn.Conv2d(1, 2, 3, padding=1), **stages, "pool": nn.MaxPool2d(2)}
    return nn.Sequential(nn.modules.container.OrderedDict(parts))


def names(report):
    return [change.name for change in report.changed]


def test_without_rules_everything_but_the_stem_is_converted():
    _, report = sizeless.convert(model(), INPUT, conv="flex")
    assert names(report) == ["one.0", "one.1", "two.0", "two.1"]
    _, report = sizeless.convert(model(), INPUT, conv="flex", stem=True)
    assert names(report)[0] == "stem"


def test_none_and_false_leave_layers_alone():
    for no in (None, False):
        _, report = sizeless.convert(model(), INPUT, conv="flex", rules={"one.*": no})
        assert names(report) == ["two.0", "two.1"]
        reasons = {change.name: change.reason for change in report.left_alone}
        assert reasons == {
            "stem": "the stem",
            "one.0": "a rule says so",
            "one.1": "a rule says so",
        }


def test_the_first_pattern_that_matches_counts():
    rules = {"*.1": True, "*": None}
    _, report = sizeless.convert(model(), INPUT, conv="flex", rules=rules)
    assert names(report) == ["one.1", "two.1"]


def test_a_rule_for_the_stem_converts_it():
    _, report = sizeless.convert(model(), INPUT, conv="flex", rules={"stem": True})
    assert names(report)[0] == "stem"


def test_options_of_a_rule_override_those_of_all():
    options = {"kernel_size": 9, "look_ahead": 1}
    rules = {"two.*": {"kernel_size": 15}}
    new, _ = sizeless.convert(model(), INPUT, conv="flex", conv_options=options, rules=rules)
    assert [layer.kernel_size for layer in (*new.one, *new.two)] == [(9, 9)] * 2 + [(15, 15)] * 2
    assert {layer.look_ahead for layer in (*new.one, *new.two)} == {1}


def test_a_function_may_decide():
    seen = []

    def rule(path, module):
        seen.append(path)
        return {"kernel_size": 11} if module.kernel_size == (5, 5) else None

    new, report = sizeless.convert(model(), INPUT, conv="flex", rules=rule)
    assert names(report) == ["one.1", "two.1"]
    assert new.two[1].kernel_size == (11, 11)
    assert set(seen) == {"stem", "one.0", "one.1", "two.0", "two.1"}


def test_an_option_counts_for_layers_that_have_it():
    rules = {"*": {"kernel_size": 13, "transition": 0.5}}
    new, _ = sizeless.convert(model(), INPUT, "flex", "diffstride", rules=rules)
    assert new.one[0].kernel_size == (13, 13)
    assert new.pool[-1].transition == 0.5


def test_rules_know_layers_by_their_old_paths():
    strided = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, 2, padding=1))
    rules = {"1": {"kernel_size": 7}}
    new, report = sizeless.convert(strided, INPUT, "flex", "diffstride", rules=rules)
    assert new[1][0].kernel_size == (7, 7)
    assert names(report) == ["1", "1.0"]


@pytest.mark.parametrize("operation", [{"conv": "flex"}, {"downsample": "diffstride"}])
def test_patterns_that_match_nothing_are_refused(operation):
    rules = {"pool": None, "stem": None, "thre.*": True, "one": None}
    message = (
        "rules must match paths of layers, and nothing matches ['one', 'thre.*']; "
        "model.named_modules() lists the paths"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sizeless.convert(model(), INPUT, "flex", "diffstride", rules=rules)
    with pytest.raises(ValueError, match=r"^rules must match paths of layers"):
        sizeless.convert(model(), INPUT, **operation, rules={"five": None})


@pytest.mark.parametrize("answer", ["flex", 3, [1]])
def test_other_answers_are_refused(answer):
    message = (
        f"rules must say True, False, None or a dictionary of options, got {answer!r} for 'two.0'"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        sizeless.convert(model(), INPUT, conv="flex", rules={"two.0": answer})
    with pytest.raises(TypeError, match=r"^rules must say True"):
        sizeless.convert(model(), INPUT, conv="flex", rules=lambda *_: answer)


def test_options_that_no_operation_has_are_refused():
    with pytest.raises(TypeError, match=r"^rules for 'one\.0' have no size=3; allowed are "):
        sizeless.convert(model(), INPUT, conv="flex", rules={"one.*": {"size": 3}})


def test_a_dry_run_reports_what_would_be_done():
    original = model()
    rules = {"one.*": None}
    new, planned = sizeless.convert(original, INPUT, conv="flex", rules=rules, dry_run=True)
    assert new is original
    _, done = sizeless.convert(original, INPUT, conv="flex", rules=rules)

    def sizes(report):
        return [(c.name, c.after, c.parameters_after, c.macs_after) for c in report.changes]

    assert sizes(planned) == sizes(done)
