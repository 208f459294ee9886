"""The command line: ``implicitprm train | score | evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import datasets
import torch
import typer
from rich.console import Console
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed

from implicitprm.data import CONVERTERS, append_jsonl, read_rows, split_by_prompt
from implicitprm.reports import first_error_report, outcome_report
from implicitprm.rewards import ImplicitPRM, check_same_tokenizer, load_causal_lm
from implicitprm.steps import SolutionFormat
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer, train_last_layers

app = typer.Typer(
    help="Train, use and judge implicit process reward models.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
console = Console()

Data = Annotated[str, typer.Option(help="JSONL, JSON or parquet file, or a hub id")]
Split = Annotated[str, typer.Option(help="which split of a hub data set to read")]
Converter = Annotated[
    str | None,
    typer.Option(help=f"layout of an external data set: {', '.join(sorted(CONVERTERS))}"),
]
Policy = Annotated[str, typer.Option(help="hub id or folder of the policy π_θ")]
Beta = Annotated[float, typer.Option(help="β of r = β log π_θ/π_ref")]
Separator = Annotated[str, typer.Option(help="text between steps; \\n stands for a line end")]
Chat = Annotated[
    bool | None,
    typer.Option("--chat/--plain", help="use the chat template; default: if the model has one"),
]
Limit = Annotated[int | None, typer.Option(help="read only this many rows of the data", min=1)]
Shuffle = Annotated[
    bool, typer.Option("--shuffle", help="read the rows in random order; many files are sorted")
]
Seed = Annotated[int, typer.Option(help="seed of everything random")]


@app.command()
def train(
    data: Data,
    policy: Policy,
    output: Annotated[Path, typer.Option(help="folder for the trained policy; must not exist")],
    reference: Annotated[
        str | None, typer.Option(help="hub id or folder of π_ref; default: the policy as it starts")
    ] = None,
    converter: Converter = None,
    split: Split = "train",
    beta: Beta = 0.05,
    learning_rate: Annotated[float, typer.Option(help="peak learning rate")] = 5e-7,
    epochs: Annotated[float, typer.Option(help="passes over the training data")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="solutions per update", min=1)] = 64,
    micro_batch_size: Annotated[int, typer.Option(help="solutions per forward pass", min=1)] = 8,
    last_layers: Annotated[
        int | None, typer.Option(help="train only the last so many layers; default: all")
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(help="share of prompts kept from training, written to OUTPUT", min=0, max=0.9),
    ] = 0.0,
    separator: Separator = "\\n\\n",
    chat: Chat = None,
    shuffle: Shuffle = False,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Train a policy with the CE objective on rows of prompt, completion, label."""
    if output.exists():
        raise typer.BadParameter(f"{output} exists; name another folder or remove it")
    if batch_size % micro_batch_size:
        raise typer.BadParameter(
            f"batch size {batch_size} is no multiple of micro batch size {micro_batch_size}"
        )
    set_seed(seed)
    rows = _read(data, split, converter, limit, seed if shuffle else None)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    format = _format(tokenizer, separator, chat)
    parts = split_by_prompt(rows, held_out, seed) if held_out else {"train": rows}
    model = load_causal_lm(policy, torch.float32)  # full-precision weights, whatever the autocast
    if reference is not None:
        check_same_tokenizer(tokenizer, AutoTokenizer.from_pretrained(reference))
    if last_layers is not None:
        train_last_layers(model, last_layers)
    trainer = ImplicitPRMTrainer(
        model=model,
        reference=model if reference is None else load_causal_lm(reference, torch.float32),
        args=ImplicitPRMConfig(
            output_dir=str(output),
            beta=beta,
            learning_rate=learning_rate,
            num_train_epochs=epochs,
            per_device_train_batch_size=micro_batch_size,
            gradient_accumulation_steps=batch_size // micro_batch_size,
            bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
            save_strategy="no",
            logging_steps=1,
            seed=seed,
        ),
        train_dataset=parts["train"],
        processing_class=tokenizer,
        format=format,
    )
    trainer.train()
    trainer.save_model(str(output))
    if held_out:
        append_jsonl(output / "held_out.jsonl", parts["test"])
        console.print(f"{len(parts['test'])} held-out rows: {output / 'held_out.jsonl'}")
    (output / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1))
    console.print(f"trained on {len(parts['train'])} rows: {output}")


@app.command()
def score(
    data: Data,
    policy: Policy,
    output: Annotated[Path, typer.Option(help="JSONL file to write; must not exist")],
    reference: Annotated[
        str | None, typer.Option(help="hub id or folder of π_ref; default: a uniform reference")
    ] = None,
    converter: Converter = None,
    split: Split = "train",
    beta: Beta = 0.05,
    separator: Separator = "\\n\\n",
    chat: Chat = None,
    batch_size: Annotated[int, typer.Option(help="solutions per forward pass", min=1)] = 8,
    shuffle: Shuffle = False,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Add step rewards, q-values and the outcome reward to every row.

    Rows have a prompt and either completions, a list of steps, or completion, a whole response.
    """
    if output.exists():
        raise typer.BadParameter(f"{output} exists; name another file or remove it")
    rows = _read(data, split, converter, limit, seed if shuffle else None)
    format = _format(AutoTokenizer.from_pretrained(policy), separator, chat)
    prm = ImplicitPRM.from_pretrained(policy, reference, beta=beta, format=format)
    chunk = 32 * batch_size  # written chunk by chunk, so that a crash loses one chunk at most
    for start in range(0, len(rows), chunk):
        part = rows.select(range(start, min(start + chunk, len(rows))))
        append_jsonl(output, prm.score_dataset(part, batch_size))
    console.print(f"scored {len(rows)} solutions: {output}")


@app.command()
def evaluate(
    scored: Annotated[Path, typer.Argument(help="a file that `implicitprm score` wrote")],
    group: Annotated[
        str | None, typer.Option(help="column within whose values AUROC is reported as well")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Judge scored rows: AUROC where they have outcome labels, F1 where they have first errors."""
    rows = read_rows(str(scored))
    if "first_error" in rows.column_names:
        console.print(first_error_report(rows, seed))
    elif "label" in rows.column_names:
        console.print(outcome_report(rows, group, seed))
    else:
        raise typer.BadParameter(
            f"{scored} has neither a 'label' nor a 'first_error' column; it has {rows.column_names}"
        )


def _read(
    data: str, split: str, converter: str | None, limit: int | None, shuffle_seed: int | None
) -> datasets.Dataset:
    if shuffle_seed is None:
        rows = read_rows(data, split, limit)
    else:
        rows = read_rows(data, split).shuffle(shuffle_seed)
        rows = rows.select(range(min(limit or len(rows), len(rows))))
    if converter is None:
        return rows
    if converter not in CONVERTERS:
        raise typer.BadParameter(
            f"no converter {converter!r}; there are {', '.join(sorted(CONVERTERS))}"
        )
    return CONVERTERS[converter](rows)


def _format(
    tokenizer: PreTrainedTokenizerBase, separator: str, chat: bool | None
) -> SolutionFormat:
    separator = separator.replace("\\n", "\n")
    if chat is None:
        chat = tokenizer.chat_template is not None
    return SolutionFormat(separator, chat)


if __name__ == "__main__":
    app()
