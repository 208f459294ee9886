"""Predictions, and the checkers by mutation: right answers pass, wrong ones get their diagnosis."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sheet_answers
import torch
from tiny import tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM

from implicitprm import Solution
from implicitprm.arithmetic import ARITHMETIC_FORMAT
from implicitprm.arithmetic.tokenizer import build_tokenizer
from implicitprm.classroom import (
    EXERCISES,
    HINTS,
    SIGNS,
    check,
    compare,
    hint,
    predict,
    predictions,
    sign,
)
from implicitprm.comparisons.autopsv import autopsv_labels
from implicitprm.logprobs import score_logps
from implicitprm.memory import Load, expected_memory
from implicitprm.presets import PRESETS, model_config
from implicitprm.reinforce.terms import leave_one_out
from implicitprm.steps import EncodedSolution, encode
from implicitprm.training import train_last_layers

# ---- predict and compare --------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    predictions._predictions.clear()
    predictions._revealed.clear()


@pytest.mark.parametrize(
    ("answer", "form", "agreeing", "other"),
    [
        (0.3, {"within": 0.1}, 0.39, 0.41),
        (2, {"within": 0}, 2.0, 3),
        (np.int64(2), {"within": 0}, np.int64(2), np.float32(3)),
        ("zero", {"among": SIGNS}, "zero", "positive"),
        (["a", "b", "c"], {"among": ["c", "b", "a"]}, ["a", "b", "c"], ["b", "a", "c"]),
    ],
)
def test_a_prediction_is_compared_with_what_comes(
    capsys: pytest.CaptureFixture[str], answer: Any, form: dict[str, Any], agreeing: Any, other: Any
) -> None:
    predict("key", "What comes?", answer, **form)
    assert capsys.readouterr().out.startswith("What comes?\nYou predict: ")
    compare("key", agreeing)
    assert "(as predicted)" in capsys.readouterr().out
    compare("key", other)
    assert "(not as predicted)" in capsys.readouterr().out


def test_the_printed_text_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    predict("order", "Which is larger?", ["soft", "hard"], among=["soft", "hard"])
    compare("order", ("hard", "soft"))
    assert capsys.readouterr().out == (
        "Which is larger?\nYou predict: soft < hard\n"
        "You predicted: soft < hard\nObserved: hard < soft (not as predicted)\n"
    )


def test_an_answer_given_after_the_result_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    predict("q", "How many?", 3, within=0)
    predict("q", "How many?", 5, within=0)
    assert "after the result" not in capsys.readouterr().out
    compare("q", 4)
    predict("q", "How many?", 4, within=0)
    assert "4 (after the result was shown)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "form", "message"),
    [
        (None, {"within": 1}, "no answer yet"),
        (..., {"among": SIGNS}, "no answer yet"),
        (0.5, {}, "with within="),
        ("zero", {}, "with among="),
        ("huge", {"among": SIGNS}, "'huge' is not a choice"),
        (["a"], {"among": ["a", "b"]}, "order all of"),
        (["a", "a"], {"among": ["a", "b"]}, "each once"),
        (math.nan, {"within": 1}, "not a finite number"),
    ],
)
def test_an_answer_in_no_checkable_form_is_an_error(
    answer: Any, form: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predict("key", "What?", answer, **form)
    with pytest.raises(ValueError, match="no prediction under 'key'"):
        compare("key", 1.0)


def test_answers_are_kept_where_the_learner_asks_for_it_and_nowhere_else(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    predict("order", "Which is larger?", ["soft", "hard"], among=["soft", "hard"])
    compare("order", ("soft", "hard"))
    silent = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    predictions._revealed.clear()
    monkeypatch.setenv("IMPLICITPRM_ANSWERS", "answers.jsonl")
    predict("order", "Which is larger?", ["soft", "hard"], among=["soft", "hard"])
    compare("order", ("soft", "hard"))
    assert capsys.readouterr().out == silent
    compare("order", ("hard", "soft"))
    numbers: list[Any] = [np.int64(3), np.float32(4)]
    predict("gap", "By how much, β?", numbers[0], within=1)
    compare("gap", numbers[1])
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert all(entry.pop("time").endswith("+00:00") for entry in entries)
    assert entries == [
        {"predict": "order", "question": "Which is larger?", "answer": ["soft", "hard"],
         "late": False},
        {"compare": "order", "observed": ["soft", "hard"], "agrees": True},
        {"compare": "order", "observed": ["hard", "soft"], "agrees": False},
        {"predict": "gap", "question": "By how much, β?", "answer": 3.0, "late": False},
        {"compare": "gap", "observed": 4.0, "agrees": True},
    ]  # fmt: skip


def test_sign() -> None:
    assert [sign(x) for x in (-1, -1e-12, 0, 1e-12, 0.2)] == [
        "negative", "zero", "zero", "zero", "positive"
    ]  # fmt: skip


# ---- check: a correct answer, written differently -------------------------------------------


def other_weighted_vote(answers: Sequence[str], step_rewards: Sequence[np.ndarray]) -> str:
    weight: dict[str, float] = {}
    for answer, rewards in zip(answers, step_rewards, strict=True):
        weight[answer] = weight.get(answer, 0) + 1 / (1 + math.exp(-sorted(rewards)[0]))
    return sorted(weight.items(), key=lambda item: item[1])[-1][0]


def other_token_logps(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> np.ndarray:
    out = np.zeros(input_ids.shape)
    for b, t in itertools.product(*map(range, input_ids.shape)):
        if response_mask[b, t]:
            row = logits[b, t - 1].double().numpy()
            out[b, t] = math.log(math.exp(row[input_ids[b, t]]) / sum(map(math.exp, row)))
    return out


def other_q_values(
    policy_logps: Tensor, ref_logps: Tensor, response_mask: Tensor, beta: float
) -> list[list[float]]:
    rows = []
    for policy, ref, mask in zip(policy_logps, ref_logps, response_mask, strict=True):
        terms = [beta * float(p - r) * bool(m) for p, r, m in zip(policy, ref, mask, strict=True)]
        rows.append(list(itertools.accumulate(terms)))
    return rows


def other_implicit_value(rewards: np.ndarray, beta: float) -> Tensor:
    scaled = torch.tensor(rewards) / beta
    return beta * (torch.logsumexp(scaled, 0) - math.log(len(rewards)))


def other_step_ends(spans: list[tuple[int, int]], step_starts: list[int]) -> np.ndarray:
    # A step ends before the first token that starts in the step after it.
    firsts = [
        next(token for token, (first, _) in enumerate(spans) if first >= start)
        for start in step_starts[1:]
    ]
    return np.array([*firsts, len(spans)])


def other_ce_loss(rewards: Tensor, labels: Tensor, weights: Tensor) -> float:
    total = 0.0
    for r, label, weight in zip(rewards.tolist(), labels.tolist(), weights.tolist(), strict=True):
        x = -r if label else r
        total += weight * (max(x, 0) + math.log1p(math.exp(-abs(x))))
    return total / float(weights.sum())


def other_kto_loss(rewards: Tensor, labels: Tensor, mismatched: Tensor) -> float:
    z = max(0.0, float(mismatched.mean()))
    losses = [
        1 / (1 + math.exp(r - z)) if label else 1 / (1 + math.exp(z - r))
        for r, label in zip(rewards.tolist(), labels.tolist(), strict=True)
    ]
    return sum(losses) / len(losses)


def other_best_of_n(scores: np.ndarray, correct: np.ndarray, n: int) -> float:
    subsets = list(itertools.combinations(range(len(scores)), n))
    return sum(bool(correct[max(s, key=lambda i: scores[i])]) for s in subsets) / len(subsets)


def other_instructions_with_pair(pass_rates: np.ndarray, responses: int) -> float:
    # A pair is there where the number of right responses is neither none nor all of them.
    return sum(
        math.comb(responses, k) * p**k * (1 - p) ** (responses - k)
        for p in pass_rates.tolist()
        for k in range(1, responses)
    )


def other_training_memory(sizes: np.ndarray, trained: np.ndarray, processes: int) -> float:
    # Numbers of 4 bytes: the weight; if it is trained, its gradient and AdamW's two moments.
    numbers = [size * (1 + 3 * bool(t)) for size, t in zip(sizes, trained, strict=True)]
    return 4 * sum(numbers) / processes


def finding_of_one(low: float, high: float, margin: float) -> str:
    if low <= 0 <= high:
        return "undecided" if max(-low, high) > margin else "no effect"
    return "effect"


def of_each(finding: Callable[[float, float, float], str]) -> Callable[..., list[str]]:
    return lambda low, high, margin: [finding(a, b, margin) for a, b in zip(low, high, strict=True)]


def hits(rewards: Sequence[np.ndarray], first: np.ndarray, threshold: float) -> np.ndarray:
    """Which solutions are judged right: the first step below the threshold, or none at all."""
    found = [next((i for i, x in enumerate(r) if x < threshold), -1) for r in rewards]
    return np.array(found) == first


def other_first_error_f1(
    rewards: Sequence[np.ndarray], first: np.ndarray, threshold: float
) -> float:
    hit = hits(rewards, first, threshold)
    a, b = hit[first != -1].mean(), hit[first == -1].mean()
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def f1_by(
    find: Callable[[np.ndarray], int], rewards: Sequence[np.ndarray], first: np.ndarray
) -> float:
    """The F1 where ``find`` names the first wrong step of each solution."""
    marks = [np.where(np.arange(len(r)) == find(r), -1.0, 1.0) for r in rewards]
    return other_first_error_f1(marks, first, 0.0)


def other_tokens_read(prompt: int, responses: np.ndarray, batch_size: int) -> int:
    waiting, read = sorted(responses.tolist()), prompt - 1
    while waiting:
        together = [waiting.pop() for _ in range(min(batch_size, len(waiting)))]
        read += together[0] * len(together)
    return read


def padded(order: np.ndarray, batch_size: int) -> int:
    """Tokens of batches in this order, each row as long as the longest of its batch."""
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return sum(int(batch.max()) * len(batch) for batch in batches)


CORRECT: dict[str, Callable[..., Any]] = {
    **sheet_answers.CORRECT,
    "weighted_vote": other_weighted_vote,
    "token_logps": other_token_logps,
    "q_values": other_q_values,
    "implicit_value": other_implicit_value,
    "step_ends": other_step_ends,
    "ce_loss": other_ce_loss,
    "kto_loss": other_kto_loss,
    "best_of_n": other_best_of_n,
    "first_error_f1": other_first_error_f1,
    "autopsv_labels": autopsv_labels,
    "uniform_rewards": lambda p, t, v, b: np.array(
        [b * (x - n * math.log(1 / v)) for x, n in zip(p, t, strict=True)]
    ),
    "interval_finding": of_each(finding_of_one),
    "instructions_with_pair": other_instructions_with_pair,
    "rloo_advantages": lambda r, k: leave_one_out(torch.tensor(r), k),
    "training_memory": other_training_memory,
    "tokens_read": other_tokens_read,
}


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_and_a_correct_answer_written_differently_pass(name: str) -> None:
    for submission in (EXERCISES[name].reference, CORRECT[name]):
        result = check(name, submission)
        assert result, result.message
        assert repr(result) == f"{name}: right on {EXERCISES[name].trials} random inputs"


# ---- check: stubs and wrong answers, written as a learner would ------------------------------


def scores(how: Callable[[np.ndarray], float]) -> Callable[..., str]:
    """A weighted vote with another score than the minimum."""

    def vote(answers: Sequence[str], step_rewards: Sequence[np.ndarray]) -> str:
        return other_weighted_vote(answers, [np.array([how(r)]) for r in step_rewards])

    return vote


def vote_without_sigmoid(answers: Sequence[str], step_rewards: Sequence[np.ndarray]) -> str:
    names = sorted(set(answers))
    sums = [
        sum(min(r) for a, r in zip(answers, step_rewards, strict=True) if a == name)
        for name in names
    ]
    return names[int(np.argmax(sums))]


def plain_vote(answers: Sequence[str], step_rewards: Sequence[np.ndarray]) -> str:
    return max(set(answers), key=list(answers).count)


def best_candidate(answers: Sequence[str], step_rewards: Sequence[np.ndarray]) -> str:
    return max(zip(answers, step_rewards, strict=True), key=lambda pair: min(pair[1]))[0]


def logps_without_shift(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    logps = torch.log(torch.softmax(logits, -1))
    return torch.where(mask, torch.gather(logps, 2, input_ids.unsqueeze(2))[..., 0], 0.0)


def logps_shifted_wrongly(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    logps = logits[:, 1:].log_softmax(-1).gather(2, input_ids[:, :-1, None])[..., 0]
    return torch.nn.functional.pad(logps, (0, 1)) * mask


def logps_unmasked(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    logps = logits[:, :-1].log_softmax(-1).gather(2, input_ids[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(logps, (1, 0))


def logps_one_left(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    return torch.nn.functional.pad((logps_unmasked(logits, input_ids, mask) * mask)[:, 1:], (0, 1))


def logps_not_normalised(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    chosen = logits[:, :-1].gather(2, input_ids[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(chosen, (1, 0)) * mask


def logps_averaged(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    logps = logps_unmasked(logits, input_ids, mask) * mask
    return logps / mask.sum(1)[:, None]


def step_owners(places: Sequence[int], step_starts: Sequence[int]) -> list[int]:
    """For each character the step that holds it."""
    return [max(k for k, start in enumerate(step_starts) if start <= max(p, 0)) for p in places]


def ends_by(
    place: Callable[[int, int], int],
) -> Callable[[list[tuple[int, int]], list[int]], list[int]]:
    """Step ends if a token belongs to the step that holds the character ``place(start, end)``."""

    def ends(spans: list[tuple[int, int]], step_starts: list[int]) -> list[int]:
        owners = step_owners([place(*span) for span in spans], step_starts)
        return [sum(owner <= k for owner in owners) for k in range(len(step_starts))]

    return ends


def tokens_per_step(spans: list[tuple[int, int]], step_starts: list[int]) -> list[int]:
    owners = step_owners([start for start, _ in spans], step_starts)
    return [owners.count(k) for k in range(len(step_starts))]


def ce_by(
    row: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A weighted mean of ``row(rewards, labels)``, the labels as 0.0 and 1.0."""

    def loss(rewards: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (row(rewards, labels.float()) * weights / weights.sum()).sum()

    return loss


def stable_row(rewards: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.softplus(torch.where(labels > 0, -rewards, rewards))


def rewards_of(policy: Tensor, ref: Tensor, mask: Tensor, beta: float) -> Tensor:
    return beta * (policy - ref) * mask


def before(confidence: np.ndarray, prior: float) -> np.ndarray:
    return np.array([prior, *confidence[:-1]])


def first_fall(change: np.ndarray, threshold: float) -> np.ndarray:
    fallen = np.flatnonzero(change < threshold)
    return np.arange(len(change)) < (fallen[0] if len(fallen) else len(change))


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    *sheet_answers.WRONG,
    ("weighted_vote", scores(sum), "the steps are summed"),
    ("weighted_vote", scores(np.mean), "the steps are averaged"),
    ("weighted_vote", scores(lambda r: r[-1]), "only the last step"),
    ("weighted_vote", vote_without_sigmoid, "the sigmoid is missing"),
    ("weighted_vote", plain_vote, "scores are not used"),
    ("weighted_vote", best_candidate, "adds up the weights"),
    ("weighted_vote", lambda answers, rewards: 0, "returns a int, not a str"),
    ("weighted_vote", lambda answers, rewards: answers[0], "in no way that this check knows"),
    ("token_logps", logps_without_shift, "the shift is missing"),
    ("token_logps", logps_shifted_wrongly, "the shift goes the wrong way"),
    ("token_logps", logps_one_left, "one position to the left"),
    ("token_logps", logps_unmasked, "the prompt is not masked"),
    ("token_logps", logps_not_normalised, "these are logits"),
    ("token_logps", logps_averaged, "a mean in place of a sum"),
    ("token_logps", lambda x, ids, m: other_token_logps(x, ids, m).sum(-1), "returns shape"),
    ("token_logps", lambda x, ids, m: x[:, :, 0] * m, "in no way that this check knows"),
    ("q_values", lambda p, r, m, b: rewards_of(p, r, m, 1).cumsum(-1), "β is forgotten"),
    ("q_values", lambda p, r, m, b: (b * p - b * r).cumsum(1), "the prompt is not masked"),
    ("q_values", lambda p, r, m, b: (b * p - b * r).cumsum(1) * m, "mask comes after"),
    ("q_values", rewards_of, "rewards of single tokens"),
    ("q_values", lambda p, r, m, b: rewards_of(r, p, m, b).cumsum(-1), "upside down"),
    ("q_values", lambda p, r, m, b: (b * p * m).cumsum(-1), "the reference is missing"),
    ("q_values", lambda p, r, m, b: rewards_of(p, r, m, b).cumsum(-1)
     / torch.maximum(m.cumsum(-1), torch.tensor(1)), "a mean in place of a sum"),
    ("q_values", lambda p, r, m, b: rewards_of(p, r, m, b).sum(-1), "returns shape"),
    ("implicit_value", lambda r, b: b * math.log(sum(math.e**x for x in r) / len(r)),
     "in no way that this check knows"),
    ("implicit_value", lambda r, b: b * np.log(np.exp(r / b).sum() / len(r)), "overflows"),
    ("implicit_value", lambda r, b: other_implicit_value(r, 1.0), "β is forgotten"),
    ("implicit_value", lambda r, b: other_implicit_value(r, b) / b, "outside the logarithm"),
    ("implicit_value", lambda r, b: b * np.logaddexp.reduce(r / b), "divides by K"),
    ("implicit_value", lambda r, b: sum(r) / len(r), "this is the soft value"),
    ("implicit_value", lambda r, b: max(r), "this is the hard value"),
    ("implicit_value", lambda r, b: b * (r / b).mean() / 0.0, "infinite or NaN"),
    ("step_ends", lambda s, k: other_step_ends(s, k) - 1, "these are the last tokens"),
    ("step_ends", lambda s, k: [0, *other_step_ends(s, k)][:-1], "these are the first tokens"),
    ("step_ends", tokens_per_step, "numbers of tokens in each step"),
    ("step_ends", ends_by(lambda start, end: end - 1), "the step of its last character"),
    ("step_ends", ends_by(lambda start, end: end), "ends where the next step starts"),
    ("step_ends", ends_by(lambda start, end: start - 1), "given to the step before"),
    ("step_ends", lambda s, k: [s[end - 1][1] for end in other_step_ends(s, k)],
     "these are characters"),
    ("step_ends", lambda s, k: [*other_step_ends(s, k)[:-1], len(s) - 1],
     "does not reach the last token"),
    ("step_ends", lambda s, k: other_step_ends(s, k)[:-1], "returns shape"),
    ("step_ends", lambda s, k: other_step_ends(s, k)[::-1], "in no way that this check knows"),
    ("ce_loss", ce_by(lambda r, y: -stable_row(r, y)), "the minus is missing"),
    ("ce_loss", ce_by(lambda r, y: stable_row(r, 1 - y)), "the labels are upside down"),
    ("ce_loss", ce_by(lambda r, y: stable_row(1 / (1 + torch.exp(-r)), y)), "σ is applied twice"),
    ("ce_loss", ce_by(lambda r, y: -y * torch.log(r.sigmoid())
     - (1 - y) * torch.log(1 - r.sigmoid())), "is NaN: take"),
    ("ce_loss", ce_by(lambda r, y: -torch.where(y > 0, r.sigmoid(), 1 - r.sigmoid()).log()),
     "is infinite: take"),
    ("ce_loss", ce_by(lambda r, y: torch.nn.BCELoss(reduction="none")(r.sigmoid(), y)),
     "no row has a loss above 100"),
    ("ce_loss", ce_by(lambda r, y: y * stable_row(r, y)), "wrong responses have no loss"),
    ("ce_loss", lambda r, y, w: stable_row(r, y).mean(), "the weights are not used"),
    ("ce_loss", lambda r, y, w: (w * stable_row(r, y)).sum(), "this is a weighted sum"),
    ("ce_loss", lambda r, y, w: (w * stable_row(r, y)).mean(), "it divides by the number of rows"),
    ("ce_loss", lambda r, y, w: stable_row(w * r, y).sum() / w.sum(),
     "the weights stand inside the logarithm"),
    ("ce_loss", lambda r, y, w: w * stable_row(r, y), "returns shape"),
    ("ce_loss", lambda r, y, w: w.mean() * r.mean(), "in no way that this check knows"),
    ("kto_loss", lambda r, y, m: kto_by(r, y, m.mean()), "can be negative"),
    ("kto_loss", lambda r, y, m: kto_by(r, y, 0.0), "the reference point is missing"),
    ("kto_loss", lambda r, y, m: kto_by(r, y, r.mean().clamp(min=0)), "from the mismatched ones"),
    ("kto_loss", lambda r, y, m: kto_by(r, y, m.clamp(min=0).mean()), "clamp the mean"),
    ("kto_loss", lambda r, y, m: kto_by(r, ~y, z_of(m)), "it is upside down"),
    ("kto_loss", lambda r, y, m: 1 - kto_by(r, y, z_of(m)), "it is upside down"),
    ("kto_loss", lambda r, y, m: kto_by(r, y, z_of(m)) * len(r), "this is a sum"),
    ("kto_loss", lambda r, y, m: -torch.log(torch.where(y, r - z_of(m), z_of(m) - r).sigmoid())
     .mean(), "as CE does"),
    ("kto_loss", lambda r, y, m: kto_by(r, y, z_of(m)) ** 2, "in no way that this check knows"),
    ("best_of_n", lambda s, c, n: with_replacement(s, c, n), "with replacement"),
    ("best_of_n", lambda s, c, n: other_best_of_n(-s, c, n), "upside down"),
    ("best_of_n", lambda s, c, n: c[np.argmax(s[:n])], "the first n candidates"),
    ("best_of_n", lambda s, c, n: other_best_of_n(s, c, len(s)), "n plays no part"),
    ("best_of_n", lambda s, c, n: sum(c) / len(c), "the scores play no part"),
    ("best_of_n", lambda s, c, n: 1 - math.comb(int((~c).sum()), n) / math.comb(len(c), n),
     "this is the oracle"),
    ("best_of_n", lambda s, c, n: sum(math.comb(int((s <= x).sum()), n) for x in s[c])
     / math.comb(len(s), n), "among the k lowest"),
    ("best_of_n", lambda s, c, n: sum(math.comb(int((s < x).sum()), n) for x in s[c])
     / math.comb(len(s), n), "the n − 1 others"),
    ("best_of_n", lambda s, c, n: [float(x) for x in c], "returns shape"),
    ("best_of_n", lambda s, c, n: n / len(s) + 1, "in no way that this check knows"),
    ("autopsv_labels", lambda f, p, t: first_fall(f - before(f, p), t), "is absolute"),
    ("autopsv_labels", lambda f, p, t: first_fall(1 - before(f, p) / f, t), "after the step"),
    ("interval_finding", of_each(lambda a, b, m: "no effect" if a <= 0 <= b else "effect"),
     "may hold 5"),
    ("interval_finding", of_each(lambda a, b, m: "effect" if a > 0 or b < 0
     else ("undecided", "no effect")[int(abs(a + b) <= 2 * m)]), "whether the middle is small"),
    ("interval_finding", of_each(lambda a, b, m: "no effect" if max(-a, b) <= m
     else finding_of_one(a, b, m)), "a small effect is an effect"),
    ("interval_finding", of_each(lambda a, b, m: "effect" if a > 0
     else ("undecided", "no effect")[int(max(-a, b) <= m)]), "an interval below 0"),
    ("interval_finding", of_each(lambda a, b, m: "effect"), "in no way that this check knows"),
    ("interval_finding", lambda low, high, m: "effect", "returns a str"),
    ("autopsv_labels", lambda f, p, t: f / before(f, p) - 1 >= t, "right again"),
    ("autopsv_labels", lambda f, p, t: autopsv_labels(f, f[0], t), "can never be wrong"),
    ("autopsv_labels", lambda f, p, t: np.invert(autopsv_labels(f, p, t)), "upside down"),
    ("first_error_f1", lambda r, f, t: f1_by(
        lambda x: int(np.argmin(x)) if min(x) < t else -1, r, f), "not always the first"),
    ("first_error_f1", lambda r, f, t: f1_by(
        lambda x: max([i for i, y in enumerate(x) if y < t] or [-1]), r, f), "the last step below"),
    ("first_error_f1", lambda r, f, t: f1_by(
        lambda x: min([i for i, y in enumerate(x) if y <= t] or [-1]), r, f), "not below it"),
    ("first_error_f1", lambda r, f, t: other_first_error_f1(
        [np.array([min(x)]) for x in r], np.minimum(f, 0), t), "found in its place"),
    ("first_error_f1", lambda r, f, t: hits(r, f, t)[f >= 0].mean(), "are left out"),
    ("first_error_f1", lambda r, f, t: (hits(r, f, t)[f >= 0].mean()
     + hits(r, f, t)[f < 0].mean()) / 2, "harmonic mean"),
    ("first_error_f1", lambda r, f, t: hits(r, f, t).mean(), "share of its own"),
    ("autopsv_labels", lambda f, p, t: f >= 0.5, "with a level"),
    ("uniform_rewards", lambda p, t, v, b: b * (p + math.log(v)), "count the tokens"),
    ("uniform_rewards", lambda p, t, v, b: b * (p - t * math.log(v)), "mind the sign"),
    ("uniform_rewards", lambda p, t, v, b: b * p + t * math.log(v), "the whole ratio"),
    ("uniform_rewards", lambda p, t, v, b: b * (p + sum(t) * math.log(v)), "whole solution"),
    ("uniform_rewards", lambda p, t, v, b: b * p, "alone"),
    ("uniform_rewards", lambda p, t, v, b: b * (p / t + math.log(v)), "mean per token"),
    ("uniform_rewards", lambda p, t, v, b: b * (p - t / v), "take the logarithm"),
    ("instructions_with_pair", lambda p, r: sum(1 - (1 - p) ** r), "all right has no pair"),
    ("instructions_with_pair", lambda p, r: sum(1 - p**r), "all wrong has no pair"),
    ("instructions_with_pair", lambda p, r: 2 * math.comb(r, 2) * (p - p * p).sum(), "number of"),
    ("instructions_with_pair", lambda p, r: np.mean(1 - p**r - (1 - p) ** r), "is the share"),
    ("instructions_with_pair", lambda p, r: len(p) * (1 - np.mean(p) ** r - np.mean(1 - p) ** r),
     "of an average instruction"),
    ("instructions_with_pair", lambda p, r: sum(2 * p * (1 - p)), "among two responses"),
    ("instructions_with_pair", lambda p, r: sum(p**r + (1 - p) ** r), "that give none"),
    ("rloo_advantages", lambda r, k: np.array(
        [x - r[i // k * k : i // k * k + k].mean() for i, x in enumerate(r)]), "in its baseline"),
    ("rloo_advantages", lambda r, k: np.array(
        [x - (r[i % (len(r) // k) :: len(r) // k].sum() - x) / (k - 1) for i, x in enumerate(r)]),
     "not a stride apart"),
    ("rloo_advantages", lambda r, k: np.array(
        [x - (r[i // k * k : i // k * k + k].sum() - x) / k for i, x in enumerate(r)]),
     "is divided by K"),
    ("rloo_advantages", lambda r, k: -leave_one_out(torch.tensor(r), k), "the sign is turned"),
    ("rloo_advantages", lambda r, k: r, "nothing is subtracted"),
    ("rloo_advantages", lambda r, k: leave_one_out(torch.tensor(r), len(r)), "the whole batch"),
    ("rloo_advantages", lambda r, k: np.concatenate(
        [(g - g.mean()) / g.std() for g in np.split(r, len(r) // k)]), "as GRPO does"),
    ("training_memory", lambda n, t, p: 4 * sum(n + n * t) / p, "AdamW is forgotten"),
    ("training_memory", lambda n, t, p: 4 * sum(n + 2 * n * t) / p, "one number is missing"),
    ("training_memory", lambda n, t, p: 8 * sum(n + n * t) / p, "frozen weights have no gradient"),
    ("training_memory", lambda n, t, p: 4 * sum(3 * n + n * t) / p, "nothing of frozen weights"),
    ("training_memory", lambda n, t, p: 16 * sum(n) / p, "neither gradients nor moments"),
    ("training_memory", lambda n, t, p: 16 * sum(n[t]) / p, "frozen weights are on the device"),
    ("training_memory", lambda n, t, p: 2 * sum(n + 3 * n * t) / p, "these are bf16's bytes"),
    ("training_memory", lambda n, t, p: sum(2 * n + 12 * n * t) / p, "weights are in float32 too"),
    ("training_memory", lambda n, t, p: 4 * sum(n) + 12 * sum(n[t]), "nothing is divided"),
    ("training_memory", lambda n, t, p: 4 * sum(n) + 12 * sum(n[t]) / p, "the weights are divided"),
    ("training_memory", lambda n, t, p: 4 * sum(n) / p + 12 * sum(n[t]), "gradients and moments"),
    ("tokens_read", lambda p, r, b: padded(np.sort(r)[::-1] + p - 1, b), "it is read once"),
    ("tokens_read", lambda p, r, b: 1 + other_tokens_read(p, r, b), "stops before its last token"),
    ("tokens_read", lambda p, r, b: p - 1 + padded(r, b), "of like length go together"),
    ("tokens_read", lambda p, r, b: p - 1 + sum(r), "padding is read too"),
    ("tokens_read", lambda p, r, b: p - 1 + len(r) * max(r), "its own longest response"),
    ("tokens_read", lambda p, r, b: p - 1 + b * sum(sorted(r)[::-1][::b]), "has fewer rows"),
    ("tokens_read", lambda p, r, b: other_tokens_read(p + len(r), r, b), "is not read"),
    ("tokens_read", lambda p, r, b: other_tokens_read(p, r - 1, b), "predicts the first one"),
    ("tokens_read", lambda p, r, b: 2 * other_tokens_read(p, r, b), "in no way that this check"),
]  # fmt: skip


def with_replacement(scores: np.ndarray, correct: np.ndarray, n: int) -> float:
    at_most = np.array([(scores <= x).mean() for x in scores])
    return float(((at_most**n - (at_most - 1 / len(scores)) ** n) * correct).sum())


def kto_by(rewards: Tensor, labels: Tensor, z: Any) -> Tensor:
    return (1 - torch.where(labels, rewards - z, z - rewards).sigmoid()).mean()


def z_of(mismatched: Tensor) -> Tensor:
    return mismatched.mean().clamp(min=0)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("name", "submission", "diagnosis"), WRONG)
def test_a_wrong_answer_gets_its_diagnosis(
    name: str, submission: Callable[..., Any], diagnosis: str
) -> None:
    for _ in range(3):  # the inputs are fresh each time
        result = check(name, submission)
        assert not result
        assert diagnosis in result.message


def test_every_mistake_of_the_registry_is_made_above() -> None:
    for name, exercise in EXERCISES.items():
        assert len(exercise.mistakes) >= 3
        for message in exercise.mistakes:
            assert any(n == name and diagnosis in message for n, _, diagnosis in WRONG), message


def blank(*arguments: Any) -> None:
    """What is left of a stub whose body is a docstring."""


def unwritten(*arguments: Any) -> None:
    raise NotImplementedError


def misspelt(*arguments: Any) -> Any:
    return arguments[0].no_such_thing


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_or_a_crash_is_told_from_a_wrong_answer(name: str) -> None:
    assert "is there a return" in check(name, blank).message
    assert "not written yet" in check(name, unwritten).message
    crash = check(name, misspelt)
    assert not crash
    assert "AttributeError on inputs (" in crash.message
    assert "no_such_thing" in crash.message


def test_a_submission_that_works_in_place_does_not_spoil_the_comparison() -> None:
    def in_place(policy: Tensor, ref: Tensor, mask: Tensor, beta: float) -> Tensor:
        return policy.sub_(ref).mul_(mask).mul_(beta).cumsum(-1)

    def zeroes(policy: Tensor, ref: Tensor, mask: Tensor, beta: float) -> Tensor:
        return policy.zero_()

    assert check("q_values", in_place)
    assert not check("q_values", zeroes)


def test_warnings_of_a_submission_are_not_shown() -> None:
    def loud(*arguments: Any) -> Any:
        warnings.warn("division by zero", RuntimeWarning, stacklevel=1)
        return EXERCISES["q_values"].reference(*arguments)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check("q_values", loud)


def test_there_are_two_hints_and_neither_is_a_solution(capsys: pytest.CaptureFixture[str]) -> None:
    hint("best_answer")
    hint("best_answer", 2)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"Hint 1 of 2: {HINTS['best_answer'][0]}"
    assert second == f"Hint 2 of 2: {HINTS['best_answer'][1]}"
    for pair in HINTS.values():
        assert len({*pair, ""}) == 3
        assert not any(code in text for text in pair for code in ("def ", "np.", "=="))


@pytest.mark.parametrize(("name", "number"), [("worst_answer", 1), ("best_answer", 3)])
def test_an_unknown_hint_is_an_error(name: str, number: int) -> None:
    with pytest.raises(ValueError, match="there are hints"):
        hint(name, number)


def test_messages_do_not_give_the_answer_away() -> None:
    for exercise in EXERCISES.values():
        for message in exercise.mistakes:
            assert not any(code in message for code in ("cumsum", "logsumexp", "[:, :-1]", "expit"))


def test_inputs_vary_in_shape() -> None:
    rng = np.random.default_rng(0)
    for exercise in EXERCISES.values():
        shapes = {
            tuple(
                len(a) if isinstance(a, (list, np.ndarray, Tensor)) else a
                for a in exercise.inputs(rng)
                if not isinstance(a, float)
            )
            for _ in range(50)
        }
        assert len(shapes) >= 3


def drawn(name: str) -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    return [EXERCISES[name].inputs(rng) for _ in range(100)]


#: The argument whose length may be 1, or a group size that may be the whole batch.
ALONE = {
    "weighted_vote": 0, "token_logps": 0, "q_values": 0, "implicit_value": 0, "ce_loss": 0,
    "kto_loss": 0, "autopsv_labels": 0, "uniform_rewards": 0, "interval_finding": 0,
    "best_answer": 0, "step_rewards": 2, "q_by_expectation": 0, "ce_gradient": 0,
    "expected_distinct": 0, "step_label_loss": 0, "step_auroc": 1,
}  # fmt: skip
TWO_PRECISIONS = (
    "weighted_vote", "token_logps", "q_values", "kto_loss", "autopsv_labels", "uniform_rewards",
    "rloo_advantages", "best_answer", "step_rewards", "q_by_expectation", "expected_max",
    "ce_gradient", "dpo_over_pairs", "expected_distinct", "step_label_loss", "step_auroc",
    "process_advantages",
)  # fmt: skip


@pytest.mark.parametrize(("name", "argument"), ALONE.items())
def test_inputs_are_one_and_several(name: str, argument: int) -> None:
    sizes = [len(arguments[argument]) for arguments in drawn(name)]
    assert 1 in sizes
    assert max(sizes) > 2


@pytest.mark.parametrize("name", ["rloo_advantages", "process_advantages"])
def test_responses_are_of_one_prompt_and_of_several(name: str) -> None:
    prompts = {len(arguments[0]) // arguments[-1] for arguments in drawn(name)}
    assert prompts >= {1, 2, 3}


@pytest.mark.parametrize("name", TWO_PRECISIONS)
def test_inputs_come_in_two_precisions(name: str) -> None:
    kinds = set()
    for arguments in drawn(name):
        first = next(a for a in arguments if not (isinstance(a, list) and isinstance(a[0], str)))
        kinds.add(str(first[0].dtype).removeprefix("torch."))
    assert kinds == {"float32", "float64"}


def test_inputs_are_padded_where_there_is_padding() -> None:
    masks = [arguments[2] for name in ("token_logps", "q_values") for arguments in drawn(name)]
    assert not any(mask[:, -1].any() for mask in masks)
    assert any(len({*mask.sum(-1).tolist()}) > 1 for mask in masks)
    batches = drawn("process_advantages")
    beyond = [np.arange(rewards.shape[1]) >= steps[:, None] for rewards, steps, _ in batches]
    assert any(padding.any() for padding in beyond)
    for (rewards, _, _), padding in zip(batches, beyond, strict=True):
        assert not rewards[padding].any()
        assert rewards[~padding].all()


def test_inputs_are_fresh_in_each_call() -> None:
    seen: list[list[float]] = []

    def submission(rewards: np.ndarray, beta: float) -> float:
        seen.append(rewards.tolist())
        return 0.0

    for _ in range(2):
        check("implicit_value", submission)
    half = len(seen) // 2
    assert half == EXERCISES["implicit_value"].trials
    assert seen[:half] != seen[half:]


def test_step_ends_are_those_of_the_package() -> None:
    solution = Solution("7+5-3\n", ("7+5=12", "12-3=9", "#9"))
    encoded = encode(build_tokenizer(), solution, ARITHMETIC_FORMAT)
    spans = list(itertools.pairwise(itertools.accumulate(map(len, encoded.tokens), initial=0)))
    _, step_starts = ARITHMETIC_FORMAT.response(solution.steps)
    assert tuple(EXERCISES["step_ends"].reference(spans, step_starts)) == encoded.step_ends


def test_training_memory_is_that_of_the_package() -> None:
    config, load = model_config(PRESETS["miniature"].options["policy"]), Load(1, 8, last_layers=1)
    parts = expected_memory(config, replace(load, processes=2))["training"]
    model = AutoModelForCausalLM.from_config(config)
    train_last_layers(model, 1)
    sizes = np.array([weight.numel() for weight in model.parameters()])
    trained = np.array([weight.requires_grad for weight in model.parameters()])
    expected = parts["weights"] + parts["gradients"] + parts["optimiser"]
    assert EXERCISES["training_memory"].reference(sizes, trained, 2) == expected


def test_tokens_read_are_those_that_scoring_reads() -> None:
    model, read = tiny_llama(0), []

    def count(layer: Any, arguments: tuple[Tensor]) -> None:
        read.append(arguments[0].shape[:2].numel())

    model.model.layers[0].register_forward_pre_hook(count)
    prompt = tuple(range(3, 43))
    lengths = np.random.default_rng(0).integers(1, 30, size=18)
    solutions = [
        EncodedSolution(prompt + (5,) * n, len(prompt), (n,), ("x",) * n) for n in lengths.tolist()
    ]
    score_logps(model, solutions, 0, 4, "test")
    assert sum(read) == EXERCISES["tokens_read"].reference(len(prompt), lengths, 4)


def test_every_step_of_the_step_ends_exercise_owns_a_token() -> None:
    rng = np.random.default_rng(0)
    across = 0
    for _ in range(200):
        spans, step_starts = EXERCISES["step_ends"].inputs(rng)
        assert (np.diff([0, *other_step_ends(spans, step_starts)]) > 0).all()
        across += any(start < step < end for start, end in spans for step in step_starts)
    assert 50 < across < 200


def test_outcomes_are_one_row_or_more_far_from_0_and_of_both_kinds() -> None:
    rng = np.random.default_rng(0)
    inputs = [EXERCISES["ce_loss"].inputs(rng) for _ in range(100)]
    assert min(len(rewards) for rewards, _, _ in inputs) == 1
    assert {labels.dtype for _, labels, _ in inputs} == {torch.bool, torch.int64}
    far = torch.cat([rewards[rewards.abs() > 100] for rewards, _, _ in inputs])
    assert (far > 0).any()
    assert (far < 0).any()


def test_a_checker_takes_under_a_second() -> None:
    for name, exercise in EXERCISES.items():
        started = time.process_time()
        check(name, exercise.reference)
        assert time.process_time() - started < 1


def test_an_unknown_exercise_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are weighted_vote, token_logps"):
        check("weighted vote", blank)
