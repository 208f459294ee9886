"""Formats, files, answers, splits and converters: good input by hand, bad input by its error."""

import builtins
import json
import math
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from datasets import Dataset, DatasetDict, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from implicitprm import data
from implicitprm.data import (
    CONVERTERS,
    add_mismatched,
    append_jsonl,
    balance_labels,
    check_format,
    extract_answer,
    is_correct,
    outcome_counts,
    pair_responses,
    read_rows,
    split_by_prompt,
    unique_with_counts,
)

unhurried = settings(deadline=None, max_examples=50)  # the machine may be busy

USER = [{"role": "user", "content": "1+1?"}]
ASSISTANT = [{"role": "assistant", "content": "2"}]


def unpaired(**columns: list[Any]) -> Dataset:
    rows = {"prompt": ["a", "b"], "completion": ["x", "y"], "label": [True, False]}
    return Dataset.from_dict(rows | columns)


def stepwise(**columns: list[Any]) -> Dataset:
    rows = {"prompt": ["a"], "completions": [["s", "t"]], "labels": [[True, False]]}
    return Dataset.from_dict(rows | columns)


# --- formats ----------------------------------------------------------------------------------


def test_labels_of_0_and_1_become_bool_and_other_columns_stay() -> None:
    checked = check_format(unpaired(label=[1, 0], model=["m", "n"]), "unpaired")
    assert checked.features["label"] == Value("bool")
    assert checked["label"][:] == [True, False]
    assert checked["model"][:] == ["m", "n"]
    steps = check_format(stepwise(labels=[[1, 0]]), "stepwise")
    assert steps.features["labels"] == List(Value("bool"))
    assert steps["labels"][:] == [[True, False]]


def test_conversational_rows_pass() -> None:
    check_format(unpaired(prompt=[USER, USER], completion=[ASSISTANT, ASSISTANT]), "unpaired")
    check_format(stepwise(prompt=[USER]), "stepwise")
    pairs = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [ASSISTANT]}
    assert check_format(Dataset.from_dict(pairs), "preference").column_names == [*pairs]


def test_standard_preference_rows_pass() -> None:
    pairs = Dataset.from_dict({"prompt": ["a"], "chosen": ["x"], "rejected": ["y"]})
    assert check_format(pairs, "preference")[0] == {"prompt": "a", "chosen": "x", "rejected": "y"}


def test_a_dataset_formatted_as_tensors_is_checked_all_the_same() -> None:
    assert check_format(unpaired().with_format("numpy"), "unpaired").num_rows == 2


def test_a_misnamed_column_is_named_with_what_is_there_and_the_likely_rename() -> None:
    rows = Dataset.from_dict({"question": ["a"], "completion": ["x"], "is_correct": [True]})
    with pytest.raises(ValueError, match="unpaired format needs") as caught:
        check_format(rows, "unpaired")
    message = str(caught.value)
    for part in (
        "needs columns prompt, completion, label",
        "found question, completion, is_correct",
        "missing prompt, label",
        "rename_columns({'question': 'prompt', 'is_correct': 'label'})",
        "gsm8k-model-solutions",
    ):
        assert part in message


def test_a_missing_column_without_a_likely_name_gets_no_rename() -> None:
    with pytest.raises(ValueError, match="missing labels") as caught:
        check_format(stepwise().remove_columns("labels"), "stepwise")
    assert "rename" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "row"),
    [
        ([1, 2], 1),
        ([1, -1], 1),
        ([0, -100], 1),
        ([True, None], 1),
        ([0.5, 0.5], 0),
        ([1.0, 0.0], 0),  # a float column holds scores or soft labels as a rule
        (["true", "false"], 0),
    ],
)
def test_a_label_that_is_not_bool_is_named_with_its_row(labels: list[Any], row: int) -> None:
    message = f"row {row}: label must be bool or 0/1, got {labels[row]!r}"
    with pytest.raises(ValueError, match=message):
        check_format(unpaired(label=labels), "unpaired")


@pytest.mark.parametrize(
    ("dataset", "kind", "message"),
    [
        (unpaired(completion=["x", ""]), "unpaired", "row 1: completion is empty: ''"),
        (unpaired(completion=[" \n", "x"]), "unpaired", "row 0: completion is empty"),
        (unpaired(completion=["x", None]), "unpaired", "row 1: completion must be text"),
        (unpaired(prompt=[["a"], ["b"]]), "unpaired", "row 0: prompt must be text or a list of"),
        (unpaired(prompt=[[], USER]), "unpaired", "row 0: prompt must be text"),
        (
            unpaired(completion=[[{"content": "x"}]] * 2),
            "unpaired",
            "row 0: completion has a message without a role",
        ),
        (
            unpaired(completion=[ASSISTANT, [{"role": "assistant", "content": ""}]]),
            "unpaired",
            "row 1: completion is empty",
        ),
        (
            Dataset.from_dict({"prompt": ["a"], "chosen": ["x"], "rejected": [""]}),
            "preference",
            "row 0: rejected is empty",
        ),
        (stepwise(completions=[[]], labels=[[]]), "stepwise", "at least one step"),
        (stepwise(completions=["s\n\nt"]), "stepwise", "at least one step: 's"),
        (stepwise(completions=[["s", " "]]), "stepwise", "row 0: step 1 must be text"),
        (stepwise(labels=[[True]]), "stepwise", "2 steps need as many labels"),
        (stepwise(labels=[[1, 2]]), "stepwise", "label of step 1 must be bool or 0/1, got 2"),
        (stepwise(labels=[[1, -100]]), "stepwise", "label of step 1 must be bool or 0/1, got -100"),
        (unpaired(), "paired", "'paired' is unknown; choose one of"),
        (DatasetDict({"train": unpaired()}), "unpaired", r"got splits \['train'\]"),
    ],
)
def test_a_bad_row_is_named(dataset: Dataset, kind: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_format(dataset, kind)


# --- reading and writing ----------------------------------------------------------------------

ROWS = [{"a": 1, "b": "x\ny"}, {"a": 2, "b": "é√"}]


def test_the_same_rows_from_every_kind_of_file(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "array.json").write_text("\n " + json.dumps(ROWS, indent=1), encoding="utf-8")
    (tmp_path / "lines.json").write_text(lines, encoding="utf-8")
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    (tmp_path / "no_end.jsonl").write_text("\n" + lines.rstrip(), encoding="utf-8")
    Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    for name in sorted(path.name for path in tmp_path.iterdir()):
        assert read_rows(tmp_path / name).to_list() == ROWS, name
        assert read_rows(str(tmp_path / name), limit=1).to_list() == ROWS[:1], name


def test_a_folder_is_read_as_a_data_set_on_the_hub_is(tmp_path: Path) -> None:
    for split in ("train", "test"):
        append_jsonl(tmp_path / f"{split}.jsonl", [{"split": split}] * 3)
    assert read_rows(tmp_path, split="test", limit=2).to_list() == [{"split": "test"}] * 2
    with pytest.raises(ValueError, match="split 'validation'"):
        read_rows(tmp_path, split="validation")


def test_a_hub_id_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(ValueError, match=r"'nobody/nothing:main' is neither a \.jsonl"):
        read_rows("nobody/nothing:main")


def test_columns_are_the_union_over_rows(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "rows.jsonl", [{"a": 1}, {"b": "x"}])
    assert read_rows(tmp_path / "rows.jsonl").to_list() == [
        {"a": 1, "b": None},
        {"a": None, "b": "x"},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', r"rows\.jsonl, line 2 is not JSON"),
        (b'{"a": 1}\n\n{"a": 2}\n{"a": 3, "b', r"rows\.jsonl, line 4 is half-written"),
        (b'{"a": 1}\n[1, 2]\n', "line 2 is not a JSON object but list"),
        (b'{"a": 1}\n"text"\n', "line 2 is not a JSON object but str"),
        (b'{"a": 1}\n{"a": NaN}\n', "line 2 is not JSON: NaN"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2 is not JSON"),
        (b'{"a": 1} {"a": 2}\n', "line 1 is not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        (b"\n\n", "has no rows"),
        (b"", "has no rows"),
        (b'{"a": true}\n{"a": null}\n{"a": 0}\n', "column 'a' has no single type: .* row 2, 0"),
        (b'{"a": "x"}\n{"a": 1}\n', "column 'a' has no single type: .* row 1, 1"),
        (b'{"b": 1, "a": [true]}\n{"a": [true, "x"]}\n', "column 'a' has no single type: .* row 1"),
        (b'{"a": 1}\n{"a": 1' + b"0" * 30 + b"}\n", "column 'a' has no single type: .* row 1"),
    ],
)
def test_an_unreadable_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rows(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [('[{"a": 1}, 2]', "item 1 is not a JSON object"), ('[{"a": 1},', "not a JSON array")],
)
def test_an_unreadable_array_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "rows.json")


def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jsonl is no file"):
        read_rows(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match="limit=0"):
        read_rows(tmp_path / "nowhere.jsonl", limit=0)


def test_what_was_written_before_a_failure_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"

    def scored() -> Iterator[dict[str, object]]:
        yield {"row": 0}
        assert read_rows(path).to_list() == [{"row": 0}]  # on disk before the next is asked for
        yield {"row": 1}
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        append_jsonl(path, scored())
    done = read_rows(path).num_rows
    assert done == 2
    assert append_jsonl(path, [{"row": row} for row in range(done, 4)]) == 2
    assert read_rows(path)["row"][:] == [0, 1, 2, 3]


@pytest.mark.parametrize("cut", range(1, 45))
def test_a_file_cut_at_any_byte_loses_only_its_last_line(tmp_path: Path, cut: int) -> None:
    lines = [json.dumps({"row": row, "text": "é\n"}, ensure_ascii=False) for row in range(4)]
    kept = "".join(line + "\n" for line in lines).encode()[:-cut]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(kept)
    complete = kept.count(b"\n")
    if kept.endswith((b"}", b"\n")):  # only an end of line is missing
        assert read_rows(path)["row"][:] == list(range(complete + kept.endswith(b"}")))
        return
    with pytest.raises(ValueError, match=f"line {complete + 1} is half-written"):
        read_rows(path)
    assert read_rows(path, limit=complete)["row"][:] == list(range(complete))


def test_nothing_is_glued_to_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    path.write_text('{"row": 0}\n{"row": 1, "te')
    with pytest.raises(ValueError, match="line 2 is half-written"):
        append_jsonl(path, [{"row": 1}])
    assert path.read_text() == '{"row": 0}\n{"row": 1, "te'
    path.write_text('{"row": 0}\n{"row": 1}')  # complete, the end of line is all that lacks
    append_jsonl(path, [{"row": 2}])
    assert read_rows(path)["row"][:] == [0, 1, 2]


def test_a_nan_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_jsonl(path, [{"score": 1.0}, {"score": math.nan}])
    assert path.read_text() == '{"score": 1.0}\n'


json_rows = st.dictionaries(
    st.sampled_from(["prompt", "β reward", "1"]),
    st.text()
    | st.integers(-(2**60), 2**60)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=30)
@given(row=json_rows)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, row: Any) -> None:
    path = tmp_path_factory.mktemp("written") / "rows.jsonl"
    append_jsonl(path, [row, row])
    assert read_rows(path).to_list() == [row, row]


# --- answers and grading ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She makes 9 * 2 = 18.\n#### 18", "18"),
        ("#### 1,000\n", "1,000"),
        ("#### $18.", "18"),
        ("#### -3.5", "-3.5"),
        ("#### 18 dollars", "18"),
        ("#### 20%", "20"),
        ("####5", "5"),
        ("#### 4\nNo, that was wrong.\n#### 5", "5"),
        ("#### Step 2: add them", None),  # a heading
        ("####", None),
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (
            r"\boxed{\left\{x : \frac{x}{\sqrt{2}} > {1}\right\}}",
            r"\left\{x : \frac{x}{\sqrt{2}} > {1}\right\}",
        ),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed {3}", "3"),
        (r"\fbox{3}", "3"),
        (r"\boxed{1} and then \boxed{2", "1"),  # never closed: cut off
        (r"\boxed{2", None),
        (r"\boxed{}", None),
        ("\\boxed{7}\n#### 8", "8"),
        ("#### 8\n\\boxed{7}", "7"),
        (r"#### \boxed{7}", "7"),
        ("16 - 3 = <<16-3=13>>13\nA: 26", "26"),
        ("so\nA: $26\n\n", "26"),
        ("A: 26\nThat is all.", None),  # not the last line
        ("7+5=12\n12-3=9\n#9", "9"),
        ("7+5=12\n12-3=9\n#9\n", "9"),
        ("#9\n7+5=12", None),
        ("The answer is 9.", None),
        ("", None),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@unhurried
@given(st.text(alphabet="#\\boxed{}A: 9\n$,.", max_size=40))
def test_extract_answer_takes_any_text(text: str) -> None:
    answer = extract_answer(text)
    assert answer is None or (answer in text and answer.strip() == answer != "")


@unhurried
@given(
    st.recursive(
        st.text("ab1 ", max_size=4),
        lambda t: st.lists(t, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
    )
)
def test_nested_braces_come_out_whole(inner: str) -> None:
    assert extract_answer(f"first \\boxed{{0}}, at last \\boxed{{{inner}}}") == (
        inner.strip() or "0"
    )


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### 1,000", "1000"),
        ("#### 1000", "1,000"),
        ("#### 18.00", "18"),
        ("#### $18", "18"),
        (r"\boxed{\$18}", "18"),
        (r"\boxed{18.}", "18"),
        ("#### 1/2", "0.5"),
        (r"\boxed{0.5}", r"\frac{1}{2}"),
        (r"\boxed{\dfrac{2}{4}}", "1/2"),
        (r"\boxed{50\%}", "50"),
        (r"\boxed{18\text{ dollars}}", "18"),
        (r"\boxed{x=5}", "5"),
        (r"\boxed{(x-1)(x+1)}", "x^2-1"),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
        (r"\boxed{(3, \pi/2)}", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\boxed{Evelyn}", r"\text{Evelyn}"),
        ("A: 18", "She makes 9 * 2 = $<<9*2=18>>18.\nA: 18"),
        ("12-3=9\n#9", "9"),
    ],
)
def test_equal_answers_are_correct(response: str, answer: str) -> None:
    assert is_correct(response, answer)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### 19", "18"),
        ("#### -18", "18"),
        ("#### 18.5", "18"),
        ("#### 0.33", "1/3"),
        ("18 is what I would say", "18"),  # states no answer
        ("", "18"),
        (r"\boxed{18", "18"),
        (r"\boxed{1/0}", "18"),
        (r"\boxed{\frac{}{}}", "18"),
        (r"\boxed{(3, \pi/3)}", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\boxed{2\sqrt{3}}", r"2\sqrt{2}"),
    ],
)
def test_different_or_missing_answers_are_not_correct(response: str, answer: str) -> None:
    assert not is_correct(response, answer)


def test_an_empty_reference_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="reference answer is empty"):
        is_correct("#### 18", " ")


def test_grading_works_off_the_main_thread() -> None:
    data._same_answer.cache_clear()  # or the main thread's results would be returned
    graded: list[object] = []

    def grade() -> None:
        try:
            graded.append(is_correct("#### 1/2", "0.5"))
            graded.append(is_correct("#### 1/2", "0.25"))
        except Exception as error:
            graded.append(error)

    thread = threading.Thread(target=grade)
    thread.start()
    thread.join()
    assert graded == [True, False]


def test_an_answer_that_cannot_be_computed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_GRADING_SECONDS", 1)
    assert not is_correct(r"\boxed{9^{9^{9^9}}}", "5")


def test_model_output_is_never_evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data._same_answer.cache_clear()
    evaluated: list[str] = []
    real_eval = builtins.eval

    def recorder(source: Any, *scopes: Any) -> object:
        if sys._getframe(1).f_globals["__name__"].startswith(("sympy", "math_verify", "latex2")):
            evaluated.append(str(source))
        return real_eval(source, *scopes)

    monkeypatch.setattr(builtins, "eval", recorder)
    trap = tmp_path / "trap"
    for answer in (
        f"__import__('pathlib').Path('{trap}').touch()",
        "(1+2)*3 - 4**2 + 7",
        "open('/etc/passwd').read()",
        "12 apples and 3*4 pears",
        r"\text{print}(1)",
    ):
        is_correct(f"\\boxed{{{answer}}}", "5")
        is_correct(f"#### -1 {answer}", "5")
    assert not trap.exists()
    # sympy builds a numeral that the grammar has recognised through eval: no more than that
    assert evaluated
    assert [e for e in evaluated if not re.fullmatch(r"(Integer|Float) \(['\d. ]+\)", e)] == []


# --- splits, duplicates, steps ----------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from("abcdefg"), min_size=8, max_size=30), st.integers(0, 5))
def test_no_prompt_is_on_both_sides(prompts: list[str], seed: int) -> None:
    rows = Dataset.from_dict({"prompt": ["x", "y", *prompts], "row": list(range(len(prompts) + 2))})
    sides = split_by_prompt(rows, 0.3, seed)
    assert not set(sides["train"]["prompt"]) & set(sides["test"]["prompt"])
    assert sorted([*sides["train"]["row"], *sides["test"]["row"]]) == rows["row"][:]
    again = split_by_prompt(rows, 0.3, seed)
    assert again["test"]["row"][:] == sides["test"]["row"][:]


def test_the_test_size_counts_prompts_not_rows() -> None:
    rows = Dataset.from_dict({"prompt": ["a"] * 50 + ["b", "c", "d"]})
    assert len(set(split_by_prompt(rows, 2, seed=0)["test"]["prompt"])) == 2
    assert len(set(split_by_prompt(rows, 0.25, seed=0)["test"]["prompt"])) == 1
    seeds = {tuple(split_by_prompt(rows, 2, seed)["test"]["prompt"]) for seed in range(8)}
    assert len(seeds) > 1
    with pytest.raises(ValueError, match="test_size=4"):
        split_by_prompt(rows, 4, seed=0)


def test_conversational_prompts_are_split_by_what_they_say() -> None:
    prompts = [[{"role": "user", "content": str(i % 4)}] for i in range(12)]
    sides = split_by_prompt(Dataset.from_dict({"prompt": prompts}), 2, seed=0)
    assert len(sides["test"]) == 6


def test_unique_with_counts_by_hand() -> None:
    rows = Dataset.from_dict(
        {
            "prompt": ["p", "p", "p", "q", "p"],
            "completion": ["x", "y", "x", "x", "x"],
            "label": [True, False, True, True, False],
            "row": [0, 1, 2, 3, 4],
        }
    )
    unique = unique_with_counts(rows)
    assert unique["row"][:] == [0, 1, 3, 4]  # order of appearance; another label is another row
    assert unique["weight"][:] == [2, 1, 1, 1]
    again = unique_with_counts(unique)
    assert again["weight"][:] == unique["weight"][:]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("xyz"), st.booleans()), min_size=1)
)
def test_weights_add_up_to_the_rows(rows: list[tuple[str, str, bool]]) -> None:
    names = ("prompt", "completion", "label")
    dataset = Dataset.from_list([dict(zip(names, row, strict=True)) for row in rows])
    unique = unique_with_counts(dataset)
    counted = {tuple(row[name] for name in names): row["weight"] for row in unique}
    assert counted == Counter(rows)
    assert len(unique) == len(counted)


def test_conversational_rows_are_merged_too() -> None:
    rows = unpaired(prompt=[USER, USER], completion=[ASSISTANT] * 2, label=[True, True])
    assert unique_with_counts(rows)["weight"][:] == [2]


# --- pairs, balance, mismatched responses -----------------------------------------------------

# Rows of a small unpaired data set: prompt, response, label, weight.
outcome_rows = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("uvwxyz"), st.booleans(), st.integers(1, 3)),
    min_size=1,
    max_size=14,
)


def outcomes(rows: list[tuple[str, str, bool, int]], **columns: Any) -> Dataset:
    names = ("prompt", "completion", "label", "weight")
    lists = {
        name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }
    return Dataset.from_dict(lists | columns)


def right_and_wrong(rows: list[tuple[str, str, bool, int]]) -> dict[str, tuple[int, int]]:
    """Responses of each prompt, right and wrong, each row as often as its weight says."""
    counts: dict[str, tuple[int, int]] = {}
    for prompt, _, label, weight in rows:
        right, wrong = counts.get(prompt, (0, 0))
        counts[prompt] = (right + weight * label, wrong + weight * (not label))
    return counts


HAND = [("p", "a", True, 2), ("p", "b", False, 1), ("p", "c", False, 3), ("q", "d", True, 5)]


def test_all_pairs_by_hand() -> None:
    pairs = pair_responses(outcomes(HAND, finished=[True, False, True, True]), "all", 0)
    assert check_format(pairs, "preference").to_list() == [
        {
            "prompt": "p",
            "chosen": "a",
            "rejected": rejected,
            "weight": weight,
            "chosen_finished": True,
            "rejected_finished": finished,
        }
        for rejected, weight, finished in (("b", 2, False), ("c", 6, True))
    ]


@settings(deadline=None, max_examples=60)
@given(outcome_rows, st.integers(0, 3))
def test_pairs_add_up_and_are_right_against_wrong(
    rows: list[tuple[str, str, bool, int]], seed: int
) -> None:
    counts = right_and_wrong(rows)
    both = sum(min(pair) > 0 for pair in counts.values())
    dataset = outcomes(rows)
    if not both:
        with pytest.raises(ValueError, match="no prompt has a right and a wrong response"):
            pair_responses(dataset, "all", seed)
        return
    rules: dict[Literal["all", "matched"], Callable[[int, int], int]] = {
        "all": lambda right, wrong: right * wrong,
        "matched": min,
    }
    for how, expected in rules.items():
        pairs = pair_responses(dataset, how, seed)
        found = Counter[str]()
        uses = Counter[tuple[str, str, bool]]()
        for pair in pairs:
            found[pair["prompt"]] += pair["weight"]
            uses[pair["prompt"], pair["chosen"], True] += pair["weight"]
            uses[pair["prompt"], pair["rejected"], False] += pair["weight"]
        assert found == {p: expected(*pair) for p, pair in counts.items() if min(pair)}
        there = Counter[tuple[str, str, bool]]()
        for prompt, completion, label, weight in rows:
            there[prompt, completion, label] += weight
        assert uses.keys() <= there.keys()
        if how == "matched":
            assert all(count <= there[response] for response, count in uses.items())
            assert pairs.to_list() == pair_responses(dataset, how, seed).to_list()


def test_matched_pairs_are_drawn_by_seed() -> None:
    rows = [("p", letter, letter in "abcd", 1) for letter in "abcdefgh"]
    draws = {
        tuple(pair_responses(outcomes(rows), "matched", seed)["rejected"]) for seed in range(9)
    }
    assert len(draws) > 1


def test_the_matched_pairs_of_weights_are_those_of_repeated_rows() -> None:
    repeated = [(p, c, label, 1) for p, c, label, weight in HAND for _ in range(weight)]
    sums = [
        sum(pair_responses(outcomes(rows), "matched", 0)["weight"]) for rows in (HAND, repeated)
    ]
    assert sums == [2, 2]


def test_matched_pairs_need_whole_weights() -> None:
    rows = outcomes(HAND).remove_columns("weight").add_column("weight", [1.0, 1.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=r"row 2: matched pairs need whole weights, not 0\.5"):
        pair_responses(rows, "matched", 0)
    assert sum(pair_responses(rows, "all", 0)["weight"]) == 1.5


def test_outcome_counts_by_hand() -> None:
    counts = outcome_counts(outcomes([*HAND, ("r", "e", False, 4)]))
    assert (counts.both, counts.right_only, counts.wrong_only) == (1, 1, 1)
    assert (counts.right, counts.wrong) == (7, 8)
    assert str(counts) == (
        "3 prompts: 1 with right and wrong responses, 1 with right ones only, 1 with wrong ones "
        "only; 7 right and 8 wrong responses"
    )


@settings(deadline=None, max_examples=60)
@given(outcome_rows)
def test_outcome_counts_add_up(rows: list[tuple[str, str, bool, int]]) -> None:
    counts, expected = outcome_counts(outcomes(rows)), right_and_wrong(rows)
    assert counts.both == sum(r > 0 and w > 0 for r, w in expected.values())
    assert counts.both + counts.right_only + counts.wrong_only == len(expected)
    assert counts.right == sum(r for r, _ in expected.values())
    assert counts.right + counts.wrong == sum(weight for *_, weight in rows)


def test_balance_by_hand() -> None:
    whole = balance_labels(outcomes(HAND), "dataset")  # 7 right and 4 wrong, 11 in all
    assert whole["weight"][:] == pytest.approx([2 * 5.5 / 7, 5.5 / 4, 3 * 5.5 / 4, 5 * 5.5 / 7])
    by_prompt = balance_labels(outcomes(HAND), "prompt")  # p: 2 right and 4 wrong; q drops out
    assert by_prompt["completion"][:] == ["a", "b", "c"]
    assert by_prompt["weight"][:] == pytest.approx([3.0, 0.75, 2.25])


@settings(deadline=None, max_examples=60)
@given(outcome_rows, st.sampled_from(["dataset", "prompt"]))
def test_balanced_weights(rows: list[tuple[str, str, bool, int]], within: Any) -> None:
    counts = right_and_wrong(rows)
    if within == "dataset":
        right, wrong = (sum(side) for side in zip(*counts.values(), strict=True))
        kept = set(counts) if right and wrong else set()
    else:
        kept = {prompt for prompt, pair in counts.items() if min(pair) > 0}
    if not kept:
        with pytest.raises(ValueError, match=f"nothing to balance within each {within}"):
            balance_labels(outcomes(rows), within)
        return
    balanced = balance_labels(outcomes(rows), within)
    assert set(balanced["prompt"]) == kept
    totals = Counter[tuple[str, bool]]()
    before = Counter[str]()
    for row in balanced:
        group = row["prompt"] if within == "prompt" else ""
        totals[group, row["label"]] += row["weight"]
    for prompt, pair in counts.items():
        if prompt in kept:
            before[prompt if within == "prompt" else ""] += sum(pair)
    for group, total in before.items():
        assert totals[group, True] == pytest.approx(totals[group, False])
        assert totals[group, True] + totals[group, False] == pytest.approx(total)
    # Within one group and label the weights keep their proportions.
    if within == "dataset":
        for label in (True, False):
            ratios = [
                row["weight"] / weight
                for row, (*_, weight) in zip(balanced, rows, strict=True)
                if row["label"] == label
            ]
            assert max(ratios) == pytest.approx(min(ratios))


def test_unknown_ways_to_pair_or_balance() -> None:
    with pytest.raises(ValueError, match="how='some' must be 'all' or 'matched'"):
        pair_responses(outcomes(HAND), "some", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="within='row' must be 'dataset' or 'prompt'"):
        balance_labels(outcomes(HAND), "row")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(outcome_rows, st.integers(0, 3))
def test_mismatched_responses_belong_to_another_prompt(
    rows: list[tuple[str, str, bool, int]], seed: int
) -> None:
    # The response carries its prompt, so that one sees where it comes from.
    tagged = [(prompt, f"{prompt}{text}", label, weight) for prompt, text, label, weight in rows]
    dataset = outcomes(tagged, finished=[weight > 1 for *_, weight in rows])
    if len({prompt for prompt, *_ in rows}) < 2:
        with pytest.raises(ValueError, match="at least two different prompts"):
            add_mismatched(dataset, seed)
        return
    mismatched = add_mismatched(dataset, seed)
    assert mismatched.select_columns(dataset.column_names).to_list() == dataset.to_list()
    own = {(row["completion"], row["finished"]) for row in mismatched}
    for row in mismatched:
        assert row["KL_completion"][0] != row["prompt"]
        assert (row["KL_completion"], row["KL_finished"]) in own
    assert add_mismatched(dataset, seed).to_list() == mismatched.to_list()


def test_mismatched_responses_are_spread_and_drawn_by_seed() -> None:
    dataset = outcomes([(f"prompt {n}", str(n), True, 1) for n in range(20)])
    draws = [tuple(add_mismatched(dataset, seed)["KL_completion"]) for seed in range(4)]
    assert len(set(draws)) == 4
    # With all prompts different, every response is used once.
    assert sorted(draws[0]) == sorted(map(str, range(20)))


# --- converters -------------------------------------------------------------------------------


def test_gsm8k_model_solutions_become_four_rows_without_annotations() -> None:
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    raw: dict[str, list[Any]] = {
        "question": ["How many?"],
        "ground_truth": ["1 + 1 = <<1+1=2>>2\nA: 2"],
    }
    for number, model in enumerate(models):
        solution = f"1 + {number} = $<<1+{number}={1 + number}>>{1 + number} now\nA: {1 + number}"
        raw[model] = [{"is_correct": number == 1, "solution": solution}]
    raw[models[3]] = [{"is_correct": False, "solution": "3 / 440 = <<3/440=0.0068"}]  # cut off
    rows = check_format(CONVERTERS["gsm8k-model-solutions"](Dataset.from_dict(raw)), "unpaired")
    assert rows["model"][:] == [*models]
    assert rows["label"][:] == [False, True, False, False]
    assert rows["prompt"][:] == ["How many?"] * 4
    assert rows["completion"][1] == "1 + 1 = $2 now\nA: 2"
    assert rows["completion"][3] == "3 / 440 = "


def test_processbench_labels_end_at_the_first_error() -> None:
    raw = Dataset.from_dict(
        {
            "id": ["gsm8k-0", "gsm8k-1", "gsm8k-2"],
            "generator": ["m"] * 3,
            "problem": ["p", "q", "r"],
            "steps": [["a", "b", "c"], ["a", "b"], ["a"]],
            "final_answer_correct": [False, True, False],
            "label": [1, -1, 0],
        }
    )
    rows = check_format(CONVERTERS["processbench"](raw), "stepwise")
    assert rows["labels"][:] == [[True, False, False], [True, True], [False]]
    assert rows["completions"][:] == raw["steps"][:]
    assert rows["first_error"][:] == [1, -1, 0]
    assert rows["id"][:] == raw["id"][:]
    assert rows["final_answer_correct"][:] == [False, True, False]
    with pytest.raises(ValueError, match="gsm8k-2: label 1 is no step of 1"):
        CONVERTERS["processbench"](raw.remove_columns("label").add_column("label", [1, -1, 1]))


def test_prompts_with_reference_answers() -> None:
    gsm8k = Dataset.from_dict({"question": ["q"], "answer": ["1 + 1 = <<1+1=2>>2\n#### 1,002"]})
    assert CONVERTERS["gsm8k"](gsm8k).to_list() == [{"prompt": "q", "answer": "1,002"}]
    with pytest.raises(ValueError, match="row 0: the answer has no `#### x`"):
        CONVERTERS["gsm8k"](Dataset.from_dict({"question": ["q"], "answer": ["two"]}))
    math500 = Dataset.from_dict({"problem": ["p"], "answer": [r"\frac{1}{2}"], "level": [2]})
    assert CONVERTERS["math500"](math500).to_list() == [{"prompt": "p", "answer": r"\frac{1}{2}"}]


def test_ultrainteract_completions_are_whole_responses() -> None:
    raw = {
        "prompt": ["p", "q"],
        "reference": ["1", "2"],
        "dataset": ["d", "d"],
        "completions": [["Step 1: a\n\nStep 2: b", "c"], ["d"]],
        "correctness": [[True, False], [False]],
        "steps": [[["Step 1: a", "Step 2: b"], ["c"]], [["d"]]],
    }
    rows = check_format(CONVERTERS["ultrainteract-rollouts"](Dataset.from_dict(raw)), "unpaired")
    assert rows.to_list() == [
        {"prompt": "p", "completion": "Step 1: a\n\nStep 2: b", "label": True},
        {"prompt": "p", "completion": "c", "label": False},
        {"prompt": "q", "completion": "d", "label": False},
    ]
    with pytest.raises(ValueError, match="row 1: 1 completions but 0 values"):
        CONVERTERS["ultrainteract-rollouts"](
            Dataset.from_dict(raw | {"correctness": [[True, False], []]})
        )


@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_a_converter_refuses_another_data_set(name: str) -> None:
    with pytest.raises(ValueError, match=f"converter '{name}' needs columns .* found text"):
        CONVERTERS[name](Dataset.from_dict({"text": ["x"]}))


# --- the real data sets -----------------------------------------------------------------------


def test_real_model_solutions(data_dir: Path) -> None:
    raw = read_rows(data_dir / "gsm8k_model_solutions.jsonl")
    rows = check_format(CONVERTERS["gsm8k-model-solutions"](raw), "unpaired").to_pandas()
    assert len(rows) == 4 * 1319
    shares = (100 * rows.groupby("model")["label"].mean()).round(1)
    assert shares.to_dict() == {
        "6b_finetuning": 21.7,
        "6b_verification": 39.0,
        "175b_finetuning": 34.7,
        "175b_verification": 56.3,
    }
    assert round(100 * rows.groupby("prompt")["label"].any().mean(), 1) == 67.2
    assert not rows["completion"].str.contains(">>", regex=False).any()
    truth = dict(zip(raw["question"], raw["ground_truth"], strict=True))
    graded = [
        is_correct(completion, truth[prompt])
        for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True)
    ]
    assert (rows["label"] == graded).mean() >= 0.99
    # 11 solutions were cut off before they state an answer
    assert rows["completion"].map(extract_answer).isna().sum() == 11


def test_real_gsm8k(data_dir: Path) -> None:
    for split, size in (("train", 7473), ("test", 1319)):
        raw = read_rows(data_dir / f"gsm8k_{split}.jsonl")
        rows = CONVERTERS["gsm8k"](raw)
        assert len(rows) == size
        assert all(
            text.endswith(f"#### {answer}")
            for text, answer in zip(raw["answer"], rows["answer"], strict=True)
        )


def test_real_math500(data_dir: Path) -> None:
    raw = read_rows(data_dir / "math500.jsonl")
    assert len(CONVERTERS["math500"](raw)) == 500
    # the reference solutions box exactly the reference answers, nested braces and all
    assert [extract_answer(solution) for solution in raw["solution"]] == raw["answer"][:]
    # and are graded wrong against the answer of the next problem, with few true coincidences
    shifted = zip(raw["solution"][:100], raw["answer"][1:101], strict=True)
    assert sum(is_correct(solution, answer) for solution, answer in shifted) <= 5


@pytest.mark.parametrize(("split", "size", "correct"), [("gsm8k", 400, 193), ("math", 1000, 406)])
def test_real_processbench(data_dir: Path, split: str, size: int, correct: int) -> None:
    raw = read_rows(data_dir / f"processbench_{split}.json")
    rows = check_format(CONVERTERS["processbench"](raw), "stepwise")
    assert len(rows) == size
    assert sum(label == -1 for label in rows["first_error"]) == correct
    assert [all(labels) for labels in rows["labels"]] == [e == -1 for e in rows["first_error"]]
