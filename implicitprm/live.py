"""Score a solution of your own: a form for a chapter that is open in JupyterLab.

The form asks :func:`judge`, which needs no widget and is what the stored chapters show: a stored
widget would bring random ids into a notebook and be dead on a page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

import ipywidgets

from implicitprm.arithmetic.problems import MODULUS, Problem, check_solution
from implicitprm.figures import has_live_front_end
from implicitprm.rewards import ImplicitPRM

_NUMBER = f"(?:{'|'.join(map(str, range(MODULUS)))})"
_LINE = re.compile(rf"{_NUMBER}[+*-]{_NUMBER}={_NUMBER}|#{_NUMBER}")


def judge(prm: ImplicitPRM, problem: str, solution: str) -> str:
    """A table of step rewards, q and what is true of each step, for a solution typed in one line.

    ``problem`` is written as ``7+5-3`` and ``solution`` as ``7+5=12 12-3=9 #9``; without an answer
    at its end it is scored as one that is still being written. A step is wrong by itself: what
    follows from a wrong step may be right.

    Raises ValueError, in words for a reader, for what is no problem or no solution of this world.
    """
    asked = Problem.parse(problem.strip() + "\n")
    steps = solution.split()
    if not steps:
        raise ValueError("there is no step yet: write for example 7+5=12 12-3=9 #9")
    for number, step in enumerate(steps):
        if not _LINE.fullmatch(step):
            raise ValueError(
                f"step {number}, {step!r}, cannot be read: write a step as 7+5=12 and the answer "
                f"as #9, spaces between them, numbers below {MODULUS}"
            )
    finished = steps[-1].startswith("#")
    truth = check_solution(asked, steps, finished)
    scored = prm.score(asked.prompt, steps, finished)
    valid = list(truth.valid)
    if not finished and len(steps) <= len(asked.operations) and truth.kind == "missing_end":
        valid[-1] = True  # it is no error of the last step that a solution goes on
    width = max(map(len, steps)) + 2
    lines = [f"{'reward':>10}{'q':>10}  {'step':{width}}truth"]
    for reward, q, step, right in zip(
        scored.step_rewards, scored.q_values, steps, valid, strict=True
    ):
        verdict = "right" if right else "wrong"
        lines.append(f"{reward:>+z10.3f}{q:>+z10.3f}  {step:{width}}{verdict}")
    return "\n".join([*lines, f"outcome reward {scored.outcome:+z.3f}"])


def answer(prms: Mapping[str, ImplicitPRM], name: str, problem: str, solution: str) -> str:
    """What :func:`judge` says, or what is wrong with the input."""
    try:
        return judge(prms[name], problem, solution)
    except ValueError as error:
        return f"Not scored: {error}"


def form(prms: Mapping[str, ImplicitPRM], problem: str, solution: str) -> ipywidgets.VBox:
    """Fields for a problem and its solution, a choice of the model, and what it says to them."""
    style = {"description_width": "6em"}
    layout = ipywidgets.Layout(width="40em")
    fields = [
        ipywidgets.Text(text, description=name, continuous_update=False, style=style, layout=layout)
        for name, text in (("problem", problem), ("solution", solution))
    ]
    model = ipywidgets.Dropdown(options=list(prms), description="model", style=style, layout=layout)
    table = ipywidgets.HTML()

    def show(_: object = None) -> None:
        said = answer(prms, model.value, *(field.value for field in fields))
        table.value = f"<pre>{escape(said)}</pre>"

    for field in (*fields, model):
        field.observe(show, "value")
    show()
    return ipywidgets.VBox([*fields, model, table])


def score_your_own(
    prms: Mapping[str, ImplicitPRM], problem: str, solution: str
) -> ipywidgets.VBox | None:
    """The form, where someone sits before the notebook; otherwise a note, and None.

    ``prms`` are the models to choose from, by name; ``problem`` and ``solution`` stand in the
    fields at first.
    """
    if has_live_front_end():
        return form(prms, problem, solution)
    print("No live front-end: run this cell in JupyterLab to score a solution of your own.")
    return None
