"""Data sets in and out: formats, reading and writing, answers and grading, splits, converters.

Formats are those of TRL, in and out as ``datasets.Dataset``:

- ``unpaired``: prompt, completion, label;
- ``preference``: prompt, chosen, rejected;
- ``stepwise``: prompt, completions (the steps), labels (one a step).

A prompt, completion, chosen or rejected is a string (standard) or a list of messages, dicts with
``role`` and ``content`` (conversational); steps are strings. Labels are bool; 0 and 1 are accepted.
"""

import json
import re
import signal
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value, load_dataset
from math_verify import LatexExtractionConfig, parse, verify
from sklearn.model_selection import GroupShuffleSplit

Format = Literal["unpaired", "preference", "stepwise"]
Row = dict[str, Any]

_COLUMNS: dict[Format, tuple[str, ...]] = {
    "unpaired": ("prompt", "completion", "label"),
    "preference": ("prompt", "chosen", "rejected"),
    "stepwise": ("prompt", "completions", "labels"),
}
# What other data sets call these columns: used to word an error, never to rename.
_OTHER_NAMES = {
    "prompt": ("question", "problem", "instruction", "input", "query", "prompts"),
    "completion": ("response", "solution", "output", "completions", "answer", "text"),
    "label": ("is_correct", "correct", "correctness", "labels", "reward", "score"),
    "chosen": ("preferred", "winner", "response_chosen"),
    "rejected": ("dispreferred", "loser", "response_rejected"),
    "completions": ("steps", "completion", "response", "solution"),
    "labels": ("step_labels", "label", "ratings", "rating"),
}

# --- formats ----------------------------------------------------------------------------------


def check_format(dataset: Dataset, kind: Format) -> Dataset:
    """The data set with bool labels, after checking that every row has the format ``kind``.

    Further columns are kept, and a prompt may be empty. Nothing is renamed by guess: that is what
    :data:`CONVERTERS` are for.

    Raises ValueError for an unknown kind; for missing columns (naming those present, those needed
    and the likely rename); and, naming the first such row, for a value of the wrong type, an empty
    completion or step, no steps, not one label a step, or a label that is not bool or 0/1.
    """
    if kind not in get_args(Format):
        raise ValueError(f"format {kind!r} is unknown; choose one of {get_args(Format)}")
    _check_columns(dataset, kind)
    for row_number, row in enumerate(dataset.with_format(None).select_columns(_COLUMNS[kind])):
        _check_row(row, kind, f"row {row_number}")
    if kind == "preference":
        return dataset
    column, wanted = ("label", Value("bool"))
    if kind == "stepwise":
        column, wanted = ("labels", List(Value("bool")))
    return dataset if dataset.features[column] == wanted else dataset.cast_column(column, wanted)


def _check_columns(dataset: Dataset, kind: Format) -> None:
    found = dataset.column_names
    if isinstance(found, dict):
        raise ValueError(f"expected one Dataset, got splits {sorted(found)}: choose one of them")
    missing = [column for column in _COLUMNS[kind] if column not in found]
    if not missing:
        return
    spare = [column for column in found if column not in _COLUMNS[kind]]
    renames = {}
    for column in missing:
        for other in _OTHER_NAMES[column]:
            if other in spare:
                renames[other] = column
                spare.remove(other)
                break
    hint = f"; perhaps dataset.rename_columns({renames})" if renames else ""
    raise ValueError(
        f"{kind} format needs columns {', '.join(_COLUMNS[kind])}; found {', '.join(found)}; "
        f"missing {', '.join(missing)}{hint}. A converter ({', '.join(CONVERTERS)}) turns a known "
        "data set into this format."
    )


def _check_row(row: Row, kind: Format, where: str) -> None:
    _check_text(row["prompt"], f"{where}: prompt", may_be_empty=True)
    if kind == "unpaired":
        _check_text(row["completion"], f"{where}: completion")
        _check_label(row["label"], f"{where}: label")
    elif kind == "preference":
        _check_text(row["chosen"], f"{where}: chosen")
        _check_text(row["rejected"], f"{where}: rejected")
    else:
        steps, labels = row["completions"], row["labels"]
        if not isinstance(steps, list) or not steps:
            raise ValueError(f"{where}: completions must be a list of at least one step: {steps!r}")
        if not isinstance(labels, list) or len(labels) != len(steps):
            raise ValueError(f"{where}: {len(steps)} steps need as many labels, got {labels!r}")
        for number, (step, label) in enumerate(zip(steps, labels, strict=True)):
            if not isinstance(step, str) or not step.strip():
                raise ValueError(f"{where}: step {number} must be text, not empty: {step!r}")
            _check_label(label, f"{where}: label of step {number}")


def _check_text(value: object, where: str, may_be_empty: bool = False) -> None:
    texts: list[object] = [value]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        texts = [message.get("content") for message in value]
        roles = [message.get("role") for message in value]
        if not all(isinstance(role, str) for role in roles):
            raise ValueError(f"{where} has a message without a role: {value!r}")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{where} must be text or a list of messages with role and content, got {value!r}"
        )
    if not may_be_empty and not all(str(text).strip() for text in texts):
        raise ValueError(f"{where} is empty: {value!r}; drop the row or mend it")


def _check_label(value: object, where: str) -> None:
    # 1.0 == 1, but a float column holds soft labels or scores as a rule: not rounded in silence
    if not isinstance(value, (bool, int)) or value not in (0, 1):
        raise ValueError(f"{where} must be bool or 0/1, got {value!r}")


# --- reading and writing ----------------------------------------------------------------------


def read_rows(source: str | Path, split: str = "train", limit: int | None = None) -> Dataset:
    """Rows of a JSONL, JSON or parquet file, or of a data set on the hub.

    A file ends in .jsonl, .json (an array of objects, or JSONL) or .parquet. Anything else is a
    hub id, or a folder that ``datasets.load_dataset`` knows how to read; ``name:configuration``
    chooses a configuration (``openai/gsm8k:main``), and ``split`` a split: it says nothing about a
    file. With ``limit`` only the first rows are read, and nothing after them is checked.

    Columns are the union over rows; a row without one has None there.

    Raises ValueError for a file that does not exist or has no rows, a line that is not a JSON
    object (naming file and line; a half-written last line is called that), a column of mixed types
    (naming its first odd row), or a hub id that cannot be loaded.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1, or None for all rows")
    path = Path(source)
    if path.suffix not in (".jsonl", ".json", ".parquet"):
        return _first_rows(_load_from_hub(str(source), split), limit)
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    if path.suffix == ".parquet":
        return _first_rows(Dataset.from_parquet(str(path)), limit)
    with path.open("rb") as file:
        is_array = path.suffix == ".json" and file.read(1024).lstrip()[:1] == b"["
    rows = list(islice(_array_rows(path) if is_array else _line_rows(path), limit))
    if not rows:
        raise ValueError(f"{path} has no rows")
    return _as_dataset(rows, str(path))


def append_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Append rows to a JSONL file one by one, each written out before the next is asked for.

    If ``rows`` fails half way (a crash while scoring), everything before is complete and readable:
    count it with :func:`read_rows` and go on from there. Returns the number of rows written.

    Raises ValueError where the file ends in a half-written line, which a further row would be
    glued to, or for a NaN, which JSON does not know.
    """
    path = Path(path)
    written = 0
    separator = b"\n" if _lacks_newline(path) else b""
    with path.open("ab") as file:
        for row in rows:
            line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode()
            file.write(separator + line + b"\n")
            file.flush()
            separator = b""
            written += 1
    return written


def _lacks_newline(path: Path) -> bool:
    """Whether the last line, complete as it must be, has no end of line."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read(1) == b"\n":
            return False
    for _ in _line_rows(path):  # raises on a half-written line
        pass
    return True


def _line_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_row(line, f"{path}, line {number}", complete=line.endswith(b"\n"))


def _parse_row(line: bytes, where: str, complete: bool) -> Row:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        what = (
            "is not JSON"
            if complete
            else "is half-written (no end of line); remove it, all lines before it are complete"
        )
        raise ValueError(f"{where} {what}: {error}: {line[:80]!r}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a JSON object but {type(row).__name__}: {line[:80]!r}")
    return row


def _array_rows(path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON array: {error}") from error
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, item {number} is not a JSON object but {row!r:.80}")
        yield row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _as_dataset(rows: list[Row], where: str) -> Dataset:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    for name, values in columns.items():
        if not _is_column(values):
            # the shortest prefix that fails, by halves: more rows cannot mend it
            prefixes = range(len(values))
            odd = bisect_left(prefixes, True, key=lambda n: not _is_column(values[: n + 1]))
            raise ValueError(
                f"{where}: column {name!r} has no single type: the first row that does not fit the "
                f"rows before it is row {odd}, {values[odd]!r:.80}"
            )
    return Dataset.from_dict(columns)


def _is_column(values: list[Any]) -> bool:
    try:
        Dataset.from_dict({"column": values})
    except (TypeError, ValueError, OverflowError):  # pyarrow raises all three
        return False
    return True


def _load_from_hub(source: str, split: str) -> Dataset:
    name, _, configuration = source.partition(":")
    try:
        return load_dataset(name, configuration or None, split=split)
    except Exception as error:  # offline, no such data set, no such split: each has its own type
        raise ValueError(
            f"{source!r} is neither a .jsonl, .json or .parquet file nor a data set that could be "
            f"loaded (split {split!r}): {error}"
        ) from error


def _first_rows(dataset: Dataset, limit: int | None) -> Dataset:
    return dataset if limit is None else dataset.select(range(min(limit, len(dataset))))


# --- answers and grading ----------------------------------------------------------------------

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"####[ \t]*([-$€£.\d\\].*)")  # `#### Step 2` is a heading
_ANSWER_LINE = re.compile(r"A:[ \t]*(.+)|#[ \t]?(-?\d+)")
# A number with a currency sign before it or a unit in words after it ("$18.", "20 dollars").
_AMOUNT = re.compile(
    r"(-?)\\?[$€£]?(-?(?:\d[\d,]*(?:\.\d+)?|\.\d+))(?:\s*\\?%|\s+[A-Za-z][A-Za-z ]*)?\.?"
)
_GRADING_SECONDS = 5


def extract_answer(text: str) -> str | None:
    """The final answer that a solution states, as it is written there; None if it states none.

    Three notations, of which the last one in the text counts: ``#### x`` (GSM8K), ``\\boxed{x}``
    with nested braces (MATH), and as the last line ``A: x`` (OpenAI's GSM8K model solutions) or
    ``#9`` (arithmetic world). A box that is never closed is no answer. Of an amount after ``####``
    or ``A:`` the number alone is kept: ``$18.`` and ``18 dollars`` are 18.
    """
    found: list[tuple[int, str | None]] = [
        (match.start(), _amount(match[1])) for match in _HASHES.finditer(text)
    ]
    found += [(match.start(), _braced(text, match.end())) for match in _BOX.finditer(text)]
    body = text.rstrip()
    last_line = body[body.rfind("\n") + 1 :].lstrip()
    if match := _ANSWER_LINE.fullmatch(last_line):
        found.append((len(body) - len(last_line), _amount(match[1] or match[2])))
    stated = [(start, answer) for start, answer in found if answer]
    return max(stated)[1] if stated else None


def is_correct(response: str, answer: str) -> bool:
    """Whether the final answer that a response states equals the reference answer.

    ``answer`` is a bare answer (``18``, ``\\frac{1}{2}``) or a reference solution that states one.
    Equal by math-verify: 1,000 = 1000, 18.00 = $18 = 18, 1/2 = 0.5, x² − 1 = (x−1)(x+1). A response
    that states no answer is wrong. Model output is parsed as LaTeX by a grammar, never evaluated as
    Python. One comparison is given up as unequal after 5 s; off the main thread and on Windows
    math-verify cannot interrupt itself, and there is no such limit.

    Raises ValueError for an empty reference answer.
    """
    if not answer.strip():
        raise ValueError("the reference answer is empty: nothing can be graded against it")
    stated = extract_answer(response)
    reference = extract_answer(answer) or answer.strip()
    return stated is not None and _same_answer(reference, stated)


def _braced(text: str, start: int) -> str | None:
    """The text from ``start`` up to the brace that closes the one before it; None if none does."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip()
    return None


def _amount(text: str) -> str:
    match = _AMOUNT.fullmatch(text.strip())
    return match[1] + match[2].rstrip(",") if match else text.strip()


@lru_cache(maxsize=100_000)
def _same_answer(reference: str, stated: str) -> bool:
    if reference == stated:
        return True
    # math-verify's time limit is a SIGALRM, which only a main thread can take
    can_interrupt = (
        hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    )
    seconds = _GRADING_SECONDS if can_interrupt else None
    expressions = (_expression(reference, seconds), _expression(stated, seconds))
    return bool(verify(*expressions, timeout_seconds=seconds))


def _expression(answer: str, seconds: int | None) -> list[Any]:
    # The LaTeX grammar alone: math-verify's other extractor hands text to sympy's parse_expr,
    # which evaluates Python.
    bare = answer.replace("\\$", "").replace("$", "").rstrip(".")
    return parse(f"${bare}$", [LatexExtractionConfig()], parsing_timeout=seconds)


# --- splits, duplicates, pairs, balance -------------------------------------------------------


def split_by_prompt(dataset: Dataset, test_size: float | int, seed: int) -> DatasetDict:
    """``train`` and ``test`` with no prompt on both sides: rows of one prompt stay together.

    ``test_size`` is a share of the prompts (0 < float < 1) or a number of prompts (int), not of
    rows. Prompts are compared exactly. Raises ValueError where a side would be empty.
    """
    prompts = [_key(prompt) for prompt in dataset["prompt"]]
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_size, random_state=seed)
    train, test = next(splitter.split(prompts, groups=prompts))
    return DatasetDict({"train": dataset.select(train), "test": dataset.select(test)})


def unique_with_counts(dataset: Dataset) -> Dataset:
    """Rows with identical prompt, completion and label merged; ``weight`` counts them (int).

    A loss over unique rows with these weights has the gradient of the loss over all rows. Order is
    that of first appearance; other columns keep the first row's value; weights that are there
    already are added up. One completion with two labels stays two rows.
    """
    keys = [
        _key(row)
        for row in zip(dataset["prompt"], dataset["completion"], dataset["label"], strict=True)
    ]
    counts = _weights_of(dataset)
    weights: dict[str, float] = {}
    first: dict[str, int] = {}
    for row_number, (key, count) in enumerate(zip(keys, counts, strict=True)):
        first.setdefault(key, row_number)
        weights[key] = weights.get(key, 0) + count
    return _with_column(dataset.select(list(first.values())), "weight", weights.values())


@dataclass(frozen=True)
class OutcomeCounts:
    """How many prompts have right responses, wrong ones, or both; responses by weight."""

    both: int
    right_only: int
    wrong_only: int
    right: float
    wrong: float

    def __str__(self) -> str:
        return (
            f"{self.both + self.right_only + self.wrong_only} prompts: {self.both} with right and "
            f"wrong responses, {self.right_only} with right ones only, {self.wrong_only} with "
            f"wrong ones only; {self.right:g} right and {self.wrong:g} wrong responses"
        )


def outcome_counts(dataset: Dataset) -> OutcomeCounts:
    """Count an unpaired data set by prompt and label."""
    totals = _label_totals(dataset)
    right, wrong = ([total[label] for total in totals.values()] for label in (True, False))
    sides = [(r > 0, w > 0) for r, w in zip(right, wrong, strict=True)]
    return OutcomeCounts(
        sides.count((True, True)),
        sides.count((True, False)),
        sides.count((False, True)),
        sum(right),
        sum(wrong),
    )


def balance_labels(dataset: Dataset, within: Literal["dataset", "prompt"]) -> Dataset:
    """Unpaired rows with ``weight`` such that right and wrong responses count alike.

    ``within`` the data set as a whole, or within every prompt, where prompts without both answers
    are dropped (:func:`outcome_counts` says how many). The total weight, and that of each prompt
    which is kept, stays as it is. The paper's "dataset-wise" and "instruction-wise balanced" CE
    (arXiv 2412.01981 §4.3), by weights in place of dropped rows.

    Raises ValueError for another ``within``, or where no right or no wrong response is there.
    """
    if within not in ("dataset", "prompt"):
        raise ValueError(f"within={within!r} must be 'dataset' or 'prompt'")
    keys = [_key(prompt) if within == "prompt" else "" for prompt in dataset["prompt"]]
    totals = _label_totals(dataset, keys)
    kept = [row for row, key in enumerate(keys) if min(totals[key].values()) > 0]
    if not kept:
        raise ValueError(f"nothing to balance within each {within}: {outcome_counts(dataset)}")
    factors = {
        (key, label): sum(total.values()) / (2 * total[label])
        for key, total in totals.items()
        for label in total
        if total[label]
    }
    weights, labels = _weights_of(dataset), dataset["label"]
    balanced = [weights[row] * factors[keys[row], bool(labels[row])] for row in kept]
    return _with_column(dataset.select(kept), "weight", balanced)


def pair_responses(dataset: Dataset, how: Literal["all", "matched"], seed: int) -> Dataset:
    """Unpaired rows → preference rows with ``weight``, right responses against wrong ones.

    ``all`` pairs every right response with every wrong one of its prompt, n₊·n₋ pairs (the
    authors' code); ``matched`` pairs each response once at most, min(n₊, n₋) pairs drawn at random
    with ``seed`` (the paper's words). A row of weight w stands for w responses. Prompts without
    both answers give no pair (:func:`outcome_counts` says how many). ``finished`` becomes
    ``chosen_finished`` and ``rejected_finished``.

    Raises ValueError for another ``how``, a weight that is no whole number (``matched``), or where
    no prompt has both answers.
    """
    if how not in ("all", "matched"):
        raise ValueError(f"how={how!r} must be 'all' or 'matched'")
    labels, weights = dataset["label"], _weights_of(dataset)
    groups: dict[str, tuple[list[int], list[int]]] = {}
    for row, prompt in enumerate(dataset["prompt"]):
        groups.setdefault(_key(prompt), ([], []))[int(not labels[row])].append(row)
    pairs: dict[tuple[int, int], float] = {}
    rng = np.random.default_rng(seed)
    for right, wrong in groups.values():
        if how == "all":
            pairs |= {(r, w): weights[r] * weights[w] for r in right for w in wrong}
        else:
            drawn = [_drawn(rows, weights, rng) for rows in (right, wrong)]
            for pair in zip(*drawn, strict=False):
                pairs[pair] = pairs.get(pair, 0) + 1
    if not pairs:
        raise ValueError(f"no prompt has a right and a wrong response: {outcome_counts(dataset)}")
    chosen, rejected = (dataset.select(side) for side in zip(*pairs, strict=True))
    columns = {
        "prompt": chosen["prompt"],
        "chosen": chosen["completion"],
        "rejected": rejected["completion"],
        "weight": list(pairs.values()),
    }
    if "finished" in dataset.column_names:
        columns |= {
            "chosen_finished": chosen["finished"],
            "rejected_finished": rejected["finished"],
        }
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


def add_mismatched(dataset: Dataset, seed: int) -> Dataset:
    """Unpaired rows with ``KL_completion``, a response that belongs to another prompt.

    KTO estimates KL(π_θ‖π_ref) on them. They are part of the data set, so that they do not depend
    on batches or processes: row by row, the next response of another prompt in one random order.
    Every row is drawn from alike, whatever its weight.
    ``finished`` of that response becomes ``KL_finished``.

    Raises ValueError where there is one prompt only.
    """
    keys = [_key(prompt) for prompt in dataset["prompt"]]
    if len(set(keys)) < 2:
        raise ValueError("mismatched responses need at least two different prompts")
    order = np.random.default_rng(seed).permutation(len(keys)).tolist()
    partner = [0] * len(keys)
    for place, row in enumerate(order):
        following = (order[(place + ahead) % len(order)] for ahead in range(1, len(order)))
        partner[row] = next(other for other in following if keys[other] != keys[row])
    mismatched = dataset.select(partner)
    dataset = _with_column(dataset, "KL_completion", mismatched["completion"])
    if "finished" in dataset.column_names:
        dataset = _with_column(dataset, "KL_finished", mismatched["finished"])
    return dataset


def _label_totals(
    dataset: Dataset, keys: Sequence[str] | None = None
) -> dict[str, dict[bool, float]]:
    """Total weight of right and of wrong responses by key, a prompt's own unless given."""
    keys = keys or [_key(prompt) for prompt in dataset["prompt"]]
    totals: dict[str, dict[bool, float]] = {key: {True: 0, False: 0} for key in keys}
    for key, label, weight in zip(keys, dataset["label"], _weights_of(dataset), strict=True):
        totals[key][bool(label)] += weight
    return totals


def _weights_of(dataset: Dataset) -> list[float]:
    return list(dataset["weight"]) if "weight" in dataset.column_names else [1] * len(dataset)


def _drawn(rows: list[int], weights: list[float], rng: np.random.Generator) -> list[int]:
    """Each row as often as its weight says, in random order."""
    for row in rows:
        if weights[row] != int(weights[row]):
            raise ValueError(f"row {row}: matched pairs need whole weights, not {weights[row]}")
    repeated = [row for row in rows for _ in range(int(weights[row]))]
    return [repeated[place] for place in rng.permutation(len(repeated))]


def _with_column(dataset: Dataset, name: str, values: Iterable[Any]) -> Dataset:
    if name in dataset.column_names:
        dataset = dataset.remove_columns(name)
    return dataset.add_column(name, list(values))


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# --- converters: one for each external data set -----------------------------------------------

_CALCULATOR = re.compile(r"<<[^<>\n]*(?:>>|$)")  # closed, or cut off where the solution ends
_UNPAIRED = {"prompt": Value("string"), "completion": Value("string"), "label": Value("bool")}
_PROMPT_AND_ANSWER = {"prompt": Value("string"), "answer": Value("string")}
_GSM8K_MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def convert_gsm8k_model_solutions(dataset: Dataset) -> Dataset:
    """Solutions of GSM8K test questions by four language models → unpaired, with ``model``.

    Source: github.com/openai/grade-school-math, example_model_solutions.jsonl (MIT): question,
    ground_truth, and for each model key a solution with is_correct. Four rows a question. The
    calculator annotations ``<<16-3=13>>``, which those models wrote for a calculator to fill in,
    are removed: an ordinary language model has never seen them.
    """
    _need(dataset, "gsm8k-model-solutions", ("question", *_GSM8K_MODELS))
    rows = [
        {
            "prompt": row["question"],
            "completion": _CALCULATOR.sub("", row[model]["solution"]),
            "label": row[model]["is_correct"],
            "model": model,
        }
        for row in dataset
        for model in _GSM8K_MODELS
    ]
    return _build(rows, {**_UNPAIRED, "model": Value("string")})


def convert_processbench(dataset: Dataset) -> Dataset:
    """Qwen/ProcessBench in its official layout → stepwise, with ``first_error`` and own columns.

    ``first_error`` is the human label (0-based, −1 for none). ``labels`` are true before it and
    false from it on: those after it are no human labels, and step metrics leave them out
    (:func:`~implicitprm.evaluation.steps_up_to_first_error`).
    """
    kept = ("id", "generator", "final_answer_correct")
    _need(dataset, "processbench", ("problem", "steps", "label", *kept))
    rows = []
    for row in dataset:
        steps, first_error = row["steps"], row["label"]
        if not -1 <= first_error < len(steps):
            raise ValueError(f"{row['id']}: label {first_error} is no step of {len(steps)}")
        labels = [first_error == -1 or step < first_error for step in range(len(steps))]
        converted = {"prompt": row["problem"], "completions": steps, "labels": labels}
        rows.append(converted | {"first_error": first_error} | {name: row[name] for name in kept})
    return _build(
        rows,
        {
            "prompt": Value("string"),
            "completions": List(Value("string")),
            "labels": List(Value("bool")),
            "first_error": Value("int64"),
            "id": Value("string"),
            "generator": Value("string"),
            "final_answer_correct": Value("bool"),
        },
    )


def convert_gsm8k(dataset: Dataset) -> Dataset:
    """openai/gsm8k (question, answer ending in ``#### x``) → prompt and final answer."""
    _need(dataset, "gsm8k", ("question", "answer"))
    rows = []
    for number, row in enumerate(dataset):
        answer = extract_answer(row["answer"])
        if answer is None:
            raise ValueError(f"row {number}: the answer has no `#### x`: {row['answer']!r:.80}")
        rows.append({"prompt": row["question"], "answer": answer})
    return _build(rows, _PROMPT_AND_ANSWER)


def convert_math500(dataset: Dataset) -> Dataset:
    """HuggingFaceH4/MATH-500 (problem, answer in LaTeX) → prompt and final answer."""
    _need(dataset, "math500", ("problem", "answer"))
    rows = [{"prompt": row["problem"], "answer": row["answer"]} for row in dataset]
    return _build(rows, _PROMPT_AND_ANSWER)


def convert_ultrainteract_rollouts(dataset: Dataset) -> Dataset:
    """Windy0822/ultrainteract_math_rollout, the paper's rollouts → unpaired.

    There ``completions`` are whole responses (not steps, as in TRL's stepwise format), with one
    ``correctness`` each: one row a response.
    """
    _need(dataset, "ultrainteract-rollouts", ("prompt", "completions", "correctness"))
    rows = []
    for number, row in enumerate(dataset):
        if len(row["completions"]) != len(row["correctness"]):
            raise ValueError(
                f"row {number}: {len(row['completions'])} completions but "
                f"{len(row['correctness'])} values of correctness"
            )
        for completion, label in zip(row["completions"], row["correctness"], strict=True):
            rows.append({"prompt": row["prompt"], "completion": completion, "label": label})
    return _build(rows, _UNPAIRED)


#: A data set's name → its converter: ``gsm8k-model-solutions``, ``processbench``, ``gsm8k``,
#: ``math500``, ``ultrainteract-rollouts``.
CONVERTERS: dict[str, Callable[[Dataset], Dataset]] = {
    "gsm8k-model-solutions": convert_gsm8k_model_solutions,
    "processbench": convert_processbench,
    "gsm8k": convert_gsm8k,
    "math500": convert_math500,
    "ultrainteract-rollouts": convert_ultrainteract_rollouts,
}


def _need(dataset: Dataset, converter: str, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in dataset.column_names]
    if missing:
        raise ValueError(
            f"converter {converter!r} needs columns {', '.join(columns)}; missing "
            f"{', '.join(missing)}; found {', '.join(dataset.column_names)}. Is it this data set?"
        )


def _build(rows: list[Row], features: dict[str, Any]) -> Dataset:
    columns = {name: [row[name] for row in rows] for name in features}
    return Dataset.from_dict(columns, features=Features(features))
