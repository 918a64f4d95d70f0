"""Each label of a data set gets the id that it has in the model, or one message says why not and
what to set."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.config_loader import load_config
from utils.core.errors import DataError
from utils.data.hints import label_map_flag, setting_flag
from utils.data.label_decision import LabelDecision, decide_labels
from utils.data.labels import MISSING_ID, UNKNOWN_ID, ModelLabels
from utils.reporting.evaluation_facts import label_mapping_text

NAMES = ("positive", "neutral", "negative")  # the order of the ids is not the alphabetical one
NAMED = ModelLabels(names=NAMES, num_labels=3, source="id2label")
STARS = ModelLabels(names=("1", "2", "3"), num_labels=3, source="id2label")
NUMBERS = tuple(str(i) for i in range(12))


def unnamed(num_labels: int) -> ModelLabels:
    return ModelLabels(names=None, num_labels=num_labels)


def decide(labels: Iterable[str], model: ModelLabels = NAMED, **settings: object) -> LabelDecision:
    return decide_labels(Counter(labels), model, **settings)  # type: ignore[arg-type]


def setting_in(error: DataError) -> dict[str, str]:
    """The label_map that a message shows, as the program reads it when the user pastes it into a
    shell."""
    assert error.fix is not None
    words = shlex.split(error.fix[error.fix.index("--set") :])
    return load_config("configs/config.yaml", [words[1].rstrip(";,")]).dataset.label_map


def test_names_on_both_sides_decide() -> None:
    decision = decide(NAMES)
    assert decision.mapping.names == NAMES
    assert decision.ids == {"positive": 0, "neutral": 1, "negative": 2}
    assert (decision.source, decision.confidence, decision.warnings) == ("model", "certain", ())


def test_labels_that_do_not_occur_keep_the_models_ids_and_are_counted() -> None:
    decision = decide(["negative"])
    assert (decision.mapping.names, decision.ids) == (NAMES, {"negative": 2})
    assert "2 of the model's 3 labels do not occur" in decision.warnings[0]


@pytest.mark.parametrize("written", ["{}", "{}.0", " {} ", "LABEL_{}"])
def test_numbers_are_the_ids_of_a_model_with_names(written: str) -> None:
    decision = decide([written.format(0), written.format(2)])
    assert decision.mapping.names == NAMES
    assert list(decision.ids.values()) == [0, 2]
    assert (decision.source, decision.confidence) == ("ids", "assumed")
    assert "label ids" in decision.warnings[0]


def test_names_that_are_numbers_have_precedence_over_ids() -> None:
    stars = ModelLabels(names=("3", "2", "1"), num_labels=3, source="id2label")
    assert decide(["1", "2"], stars).ids == {"1": 2, "2": 1}
    assert decide(["1.0", "2.0"], stars).ids == {"1.0": 2, "2.0": 1}


@pytest.mark.parametrize("written", ["{}", "{}.0"])
@pytest.mark.parametrize("skip_unknown", [False, True])
def test_ids_that_are_only_partly_names_are_refused_with_the_setting_of_the_ids(
    written: str, skip_unknown: bool
) -> None:
    labels = [written.format(number) for number in range(3)]
    with pytest.raises(DataError, match="read in two ways") as caught:
        decide(labels, STARS, skip_unknown=skip_unknown)
    assert "unknown_labels" not in str(caught.value.fix)
    setting = setting_in(caught.value)
    assert setting == {"0": "1", "1": "2", "2": "3"}
    assert decide(labels, STARS, label_map=setting).ids == dict(zip(labels, range(3), strict=True))


def test_numbers_that_are_no_ids_and_only_partly_names_may_be_skipped() -> None:
    decision = decide(["1", "2", "9"], STARS, skip_unknown=True)
    assert decision.ids == {"1": 0, "2": 1, "9": UNKNOWN_ID}


@pytest.mark.parametrize(
    ("names", "labels", "ids", "other"),
    [
        (("1", "2", "3"), ["1", "2"], [0, 1], {"1": "2", "2": "3"}),
        (("2", "1", "0"), ["0", "1", "2"], [2, 1, 0], {"0": "2", "1": "1", "2": "0"}),
    ],
)
def test_numbers_that_are_both_names_and_ids_are_assumed_to_be_names(
    names: tuple[str, ...], labels: list[str], ids: list[int], other: dict[str, str]
) -> None:
    model = ModelLabels(names=names, num_labels=len(names), source="id2label")
    decision = decide(labels, model)
    assert [decision.ids[label] for label in labels] == ids
    assert (decision.source, decision.confidence) == ("model", "assumed")
    assert label_map_flag(other) in decision.warnings[-1]
    assert decide(labels, model, label_map=other).confidence == "certain"
    are_names = decide(labels, model, class_names=("one", *labels))
    assert are_names.confidence == "certain"


def test_numbers_that_mean_the_same_as_names_and_as_ids_are_certain() -> None:
    model = ModelLabels(names=("0", "1", "2"), num_labels=3, source="id2label")
    decision = decide(["0", "1.0", "2"], model)
    assert decision.ids == {"0": 0, "1.0": 1, "2": 2}
    assert (decision.confidence, decision.warnings) == ("certain", ())


@pytest.mark.parametrize("size", [3, 11])
@pytest.mark.parametrize("has_names", [True, False])
def test_label_i_from_one_are_refused_with_the_complete_setting(size: int, has_names: bool) -> None:
    labels = [f"LABEL_{number}" for number in range(1, size + 1)]
    names = tuple(f"name {number}" for number in range(size))
    model = ModelLabels(names=names, num_labels=size) if has_names else unnamed(size)
    with pytest.raises(DataError, match=f"the model's label ids are LABEL_0 to LABEL_{size - 1}"):
        decide(labels, model, skip_unknown=True)
    with pytest.raises(DataError) as caught:
        decide(labels, model)
    decision = decide(labels, model, label_map=setting_in(caught.value))
    assert [decision.ids[label] for label in labels] == list(range(size))


@pytest.mark.parametrize(
    ("labels", "label_map"),
    [
        (["films"], {}),
        (["zebra", "yak"], {}),
        (["positive", "films"], {}),
        (["good", "films"], {"good": "positive"}),
    ],
)
def test_skipping_unknown_labels_is_offered_only_where_it_works(
    labels: list[str], label_map: dict[str, str]
) -> None:
    with pytest.raises(DataError) as caught:
        decide(labels, label_map=label_map)
    fix = str(caught.value.fix)
    assert fix.count("; or ") <= 2
    assert fix.index("dataset.label_map") == fix.index("--set") + len("--set '")
    if "unknown_labels=skip" in fix:
        assert decide(labels, label_map=label_map, skip_unknown=True).ids["films"] == UNKNOWN_ID
    else:
        with pytest.raises(DataError):
            decide(labels, label_map=label_map, skip_unknown=True)


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["positive", "neutral"], "All 2 labels in the data set occur in the model."),
        (["positive", "films"], "1 of the 2 labels in the data set occur in the model."),
    ],
)
def test_the_note_adds_to_what_the_report_says_about_the_source(
    labels: list[str], note: str
) -> None:
    decision = decide(labels, skip_unknown=True)
    expected = f"from the model's own label names (certain): {note}"
    assert label_mapping_text(decision.source, decision.confidence, decision.note) == expected


def test_ids_of_a_model_without_names_may_have_gaps_and_decimal_points() -> None:
    decision = decide(["10.0", "0.0", "2.0"], unnamed(12))
    assert decision.mapping.names == NUMBERS
    assert decision.ids == {"10.0": 10, "0.0": 0, "2.0": 2}
    assert (decision.source, decision.confidence) == ("ids", "assumed")


def test_ids_without_the_zero_are_warned_about() -> None:
    assert "label 0 does not occur" in " ".join(decide(["1", "3"], unnamed(5)).warnings)
    assert "label 0 does not occur" not in " ".join(decide(["0", "3"], unnamed(5)).warnings)


@pytest.mark.parametrize("model", [NAMED, unnamed(3)])
def test_ids_from_one_are_refused_with_the_complete_setting(model: ModelLabels) -> None:
    with pytest.raises(DataError, match="1, 2, 3") as caught:
        decide(["1", "2", "3"], model)
    targets = model.names or ("LABEL_0", "LABEL_1", "LABEL_2")
    setting = setting_in(caught.value)
    assert setting == {"1": targets[0], "2": targets[1], "3": targets[2]}
    assert list(decide(["1.0", "2.0", "3.0"], model, label_map=setting).ids.values()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "size"), [(["-1", "0", "1"], 3), (["-1", "1"], 2), (["-1", "0"], 2)]
)
def test_ids_from_minus_one_are_refused_with_the_complete_setting(
    labels: list[str], size: int
) -> None:
    with pytest.raises(DataError) as caught:
        decide(labels, unnamed(size))
    expected = {label: f"LABEL_{i}" for i, label in enumerate(labels)}
    assert setting_in(caught.value) == expected
    assert list(decide(labels, unnamed(size), label_map=expected).ids.values()) == list(
        range(len(labels))
    )


def test_minus_one_among_ids_is_no_label_and_counted() -> None:
    decision = decide(["-1", "-1.0", "0", "1", "2"], unnamed(3))
    assert decision.ids == {"-1": MISSING_ID, "-1.0": MISSING_ID, "0": 0, "1": 1, "2": 2}
    assert "2 rows have the label -1" in decision.warnings[0]


@pytest.mark.parametrize("labels", [[], ["-1"], ["-1.0", "-1"]])
@pytest.mark.parametrize(
    ("model", "names"), [(NAMED, NAMES), (unnamed(12), NUMBERS), (unnamed(1), ("0",))]
)
def test_a_data_set_without_labels_is_no_error(
    labels: list[str], model: ModelLabels, names: tuple[str, ...]
) -> None:
    decision = decide(labels, model)
    assert decision.mapping.names == names
    assert set(decision.ids.values()) <= {MISSING_ID}
    assert (decision.source, decision.confidence) == ("none", "none")
    assert "no labels" in decision.warnings[-1]


@pytest.mark.parametrize(
    "labels",
    [
        ["POSITIVE", "NEUTRAL", "NEGATIVE"],
        ["Positive", "neutral", "negative "],
        ["pos_itive", "neu-tral", "neg ative"],
    ],
)
def test_names_that_differ_in_spelling_are_refused_with_the_complete_setting(
    labels: list[str],
) -> None:
    with pytest.raises(DataError, match="differ only in") as caught:
        decide(labels)
    decision = decide(labels, label_map=setting_in(caught.value))
    assert [decision.ids[label] for label in labels] == [0, 1, 2]


def test_names_that_unicode_composes_otherwise_are_refused_with_the_complete_setting() -> None:
    composed = ModelLabels(names=("caf\u00e9", "tea"), num_labels=2, source="id2label")
    with pytest.raises(DataError, match="Unicode composes") as caught:
        decide(["cafe\u0301", "tea"], composed)
    assert setting_in(caught.value) == {"cafe\u0301": "caf\u00e9"}


def test_words_for_a_missing_value_are_refused_with_the_setting_that_takes_them_so() -> None:
    with pytest.raises(DataError, match="Probably no labels.*: 'nan', 'None'") as caught:
        decide(["positive", "nan", "None", "NEUTRAL"])
    setting = setting_in(caught.value)
    assert setting == {"NEUTRAL": "neutral", "nan": "", "None": ""}
    decision = decide(["positive", "nan", "None", "NEUTRAL"], label_map=setting)
    assert decision.ids == {"positive": 0, "NEUTRAL": 1, "nan": MISSING_ID, "None": MISSING_ID}


WITH_NUMBERS = ModelLabels(names=("1 star", "2 stars", "3 stars"), num_labels=3, source="id2label")


def test_ids_that_the_numbers_in_names_contradict_are_refused_with_both_settings() -> None:
    with pytest.raises(DataError, match="read in two ways") as caught:
        decide(["1", "2"], WITH_NUMBERS)
    assert "'1' would be the label '2 stars'" in caught.value.what
    assert setting_in(caught.value) == {"1": "2 stars", "2": "3 stars"}
    assert caught.value.fix is not None
    assert '"1": "1 star", "2": "2 stars"' in caught.value.fix


def test_ids_that_the_numbers_in_names_cannot_mean_are_ids() -> None:
    assert decide(["0", "2"], WITH_NUMBERS).ids == {"0": 0, "2": 2}


def test_a_suggestion_keeps_what_label_map_has() -> None:
    with pytest.raises(DataError) as caught:
        decide(["good", "NEUTRAL"], label_map={"good": "positive"})
    assert setting_in(caught.value) == {"good": "positive", "NEUTRAL": "neutral"}


@pytest.mark.parametrize(
    "labels", [["positive", "films"], [*NAMES, "films"], ["0", "7"], ["films"], ["0.5", "1.5"]]
)
@pytest.mark.parametrize("model", [NAMED, unnamed(7)])
def test_labels_that_do_not_fit_are_shown(labels: list[str], model: ModelLabels) -> None:
    with pytest.raises(DataError) as caught:
        decide(labels, model)
    assert labels[-1] in caught.value.what
    assert "--set" in str(caught.value.fix)


def test_a_template_that_is_pasted_as_it_is_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        decide(["a", "b"], unnamed(3))
    with pytest.raises(DataError, match="does not have"):
        decide(["a", "b"], unnamed(3), label_map=setting_in(caught.value))


def test_unknown_labels_are_skipped_only_where_some_are_known() -> None:
    decision = decide(["positive", "zebra", "zebra"], skip_unknown=True)
    assert decision.ids == {"positive": 0, "zebra": UNKNOWN_ID}
    assert "2 rows have a label that the model does not know" in decision.warnings[0]
    with pytest.raises(DataError, match="0 names agree"):
        decide(["zebra", "yak"], skip_unknown=True)


def test_label_i_are_the_ids_of_a_model_without_names() -> None:
    decision = decide(["LABEL_10", "LABEL_2"], unnamed(12))
    assert decision.ids == {"LABEL_10": 10, "LABEL_2": 2}
    assert (decision.source, decision.confidence) == ("model", "certain")


def test_the_order_of_class_names_is_the_order_of_the_ids() -> None:
    order = ("neutral", "negative", "positive")
    decision = decide(["positive", "neutral"], unnamed(3), class_names=order)
    assert decision.mapping.names == order
    assert decision.ids == {"positive": 2, "neutral": 0}
    assert (decision.source, decision.confidence) == ("class_label", "assumed")
    assert decide(["positive"], NAMED, class_names=order).ids == {"positive": 0}
    with pytest.raises(DataError, match="3 class names, the model 4"):
        decide(["positive"], unnamed(4), class_names=order)


def test_class_names_that_are_only_numbers_are_ids() -> None:
    assert decide(["1", "0"], unnamed(12), class_names=("0", "1", "2")).source == "ids"


def test_sorted_names_are_a_guess_that_shows_how_to_correct_it() -> None:
    decision = decide(["b", "a", "c"], unnamed(3))
    assert decision.ids == {"a": 0, "b": 1, "c": 2}
    assert (decision.source, decision.confidence) == ("sorted", "guessed")
    [warning] = decision.warnings
    assert (
        "guess" in warning
        and label_map_flag({"a": "LABEL_0", "b": "LABEL_1", "c": "LABEL_2"}) in warning
    )


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d"]])
def test_names_of_another_number_than_the_models_are_refused(labels: list[str]) -> None:
    with pytest.raises(DataError, match=f"has {len(labels)} labels, the model 3 without names"):
        decide(labels, unnamed(3))


def test_a_model_with_one_output_has_no_labels_to_choose_from() -> None:
    with pytest.raises(DataError, match="single output") as caught:
        decide(["0", "1"], unnamed(1))
    assert caught.value.fix == (
        "use a classifier with one output for each label: --set model.name=NAME"
    )


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("02", "01", "00"), ("2", "1", "0")),
        (("2.0", "1.0", "0.0"), ("2", "1", "0")),
        (("2", "1", "0"), ("02", "01", "00")),
    ],
)
def test_a_number_is_the_name_that_is_the_same_number(
    names: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    model = ModelLabels(names=names, num_labels=3, source="id2label")
    decision = decide(labels, model)
    assert [decision.ids[label] for label in labels] == [0, 1, 2]
    # They could be ids as well, with another meaning.
    assert decision.confidence == "assumed"
    assert "taken as its names" in decision.warnings[0]


def test_a_number_that_several_names_are_belongs_to_none_of_them() -> None:
    model = ModelLabels(names=("7", "07", "a"), num_labels=3, source="id2label")
    assert decide(["7", "07"], model).ids == {"7": 0, "07": 1}
    with pytest.raises(DataError, match="'007'"):
        decide(["7", "007"], model)


def test_truth_values_are_the_same_in_any_spelling() -> None:
    model = ModelLabels(names=("true", "false"), num_labels=2, source="id2label")
    assert decide(["False", "True"], model).ids == {"False": 1, "True": 0}
    renamed = decide(["False", "True"], label_map={"true": "positive", "false": "negative"})
    assert renamed.ids == {"False": 2, "True": 0}


def test_label_map_renames_labels_merges_them_and_takes_them_out() -> None:
    settings = {"good": "positive", "great": "positive", "1": "negative", "?": ""}
    decision = decide(["good", "great", "1.0", "?", "neutral"], label_map=settings)
    assert decision.ids == {"good": 0, "great": 0, "1.0": 2, "?": MISSING_ID, "neutral": 1}
    assert (decision.source, decision.confidence) == ("label_map", "certain")


def test_none_is_a_label_like_any_other() -> None:
    model = ModelLabels(names=("None", "other"), num_labels=2, source="id2label")
    assert decide(["other", "None"], model).ids == {"other": 1, "None": 0}
    with pytest.raises(DataError, match="'zebra'"):
        decide(["zebra", "None"], model)
    assert decide(["positive", "None"], label_map={"None": ""}).ids == {
        "positive": 0,
        "None": MISSING_ID,
    }


def test_label_map_gives_ids_to_a_model_without_names() -> None:
    decision = decide(["b", "a"], unnamed(2), label_map={"a": "LABEL_1", "b": "LABEL_0"})
    assert decision.ids == {"a": 1, "b": 0}
    assert decision.confidence == "certain"
    with pytest.raises(DataError, match="leaves labels out"):
        decide(["b", "a"], unnamed(2), label_map={"a": "LABEL_1"})


def test_label_map_with_a_label_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(DataError, match="'nice'") as caught:
        decide(["a"], label_map={"a": "nice"})
    assert "'positive'" in str(caught.value.fix)


def test_label_map_with_a_label_that_does_not_occur_is_warned_about() -> None:
    assert "'gone'" in decide(NAMES, label_map={"gone": "positive"}).warnings[0]


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30), min_size=1, max_size=5
    )
)
def test_any_setting_that_is_shown_can_be_pasted(pairs: dict[str, str]) -> None:
    _, override = shlex.split(label_map_flag(pairs))
    assert load_config("configs/config.yaml", [override]).dataset.label_map == pairs


@given(st.text(min_size=1, max_size=30))
def test_any_name_that_is_shown_can_be_pasted(name: str) -> None:
    _, override = shlex.split(setting_flag("dataset.text_column", name))
    assert load_config("configs/config.yaml", [override]).dataset.text_column == name
