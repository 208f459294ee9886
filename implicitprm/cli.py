"""The command line: ``implicitprm rollouts | train | memory | score | evaluate``."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import datasets
import torch
import typer
from rich.console import Console
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, set_seed

from implicitprm.chunks import digest, parts_folder, write_chunks
from implicitprm.data import (
    CONVERTERS,
    append_jsonl,
    balance_labels,
    check_format,
    is_correct,
    outcome_counts,
    pair_responses,
    read_rows,
    split_by_prompt,
)
from implicitprm.devices import device_memory, has_bf16, processes
from implicitprm.memory import Load, check_memory, memory_table
from implicitprm.presets import PRESETS, find_preset, model_config
from implicitprm.reports import best_of_n_reports, first_error_report, outcome_report
from implicitprm.rewards import ImplicitPRM, check_same_tokenizer, load_causal_lm
from implicitprm.rollouts import Rollout, Sampling, sample_rollouts
from implicitprm.steps import SolutionFormat
from implicitprm.training import (
    OBJECTIVES,
    ImplicitPRMConfig,
    ImplicitPRMTrainer,
    last_complete_checkpoint,
    row_lengths,
    train_last_layers,
    with_lora,
)

app = typer.Typer(
    help="Train, use and judge implicit process reward models.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
console = Console()
#: In the output folder of ``train``: what a run was started with, which resuming must not change.
SETTINGS = "settings.json"

Data = Annotated[str, typer.Option(help="JSONL, JSON or parquet file, or a hub id")]
Split = Annotated[str, typer.Option(help="which split of a hub data set to read")]
Converter = Annotated[
    str | None,
    typer.Option(help=f"layout of an external data set: {', '.join(sorted(CONVERTERS))}"),
]
Policy = Annotated[str, typer.Option(help="hub id or folder of the policy π_θ")]
Reference = Annotated[
    str | None, typer.Option(help="hub id or folder of π_ref; default: the policy as it starts")
]
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
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help=f"defaults for a model, which other options override: {', '.join(PRESETS)}",
        is_eager=True,
        callback=lambda context, name: _apply_preset(context, name),
    ),
]
ObjectiveName = Annotated[str, typer.Option(help=f"one of {', '.join(OBJECTIVES)}")]
MicroBatch = Annotated[
    int, typer.Option(help="rows per forward pass; kto estimates its z on them", min=1)
]
LastLayers = Annotated[
    int | None, typer.Option(help="train only the last so many layers; 0, the default: all", min=0)
]
LoraRank = Annotated[
    int | None,
    typer.Option(help="train a LoRA adapter of this rank; 0, the default: all weights", min=0),
]
Checkpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="less memory, a third more time")
]
Precision = Annotated[
    str | None,
    typer.Option(help="fp32, or bf16 autocast; default: bf16 where the GPU supports it"),
]


@app.command()
def rollouts(
    data: Data,
    policy: Annotated[str, typer.Option(help="hub id or folder of the model that samples")],
    output: Annotated[Path, typer.Option(help="JSONL file to write; must not exist")],
    converter: Converter = None,
    split: Split = "train",
    n: Annotated[int, typer.Option(help="responses per prompt", min=1)] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="longest response in tokens", min=1)] = 512,
    temperature: Annotated[float, typer.Option(help="divides the logits", min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(help="nucleus of this probability", min=0, max=1)] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="drop tokens below this share of the likeliest", min=0, max=1)
    ] = 0.0,
    chat: Chat = None,
    batch_size: Annotated[int, typer.Option(help="responses sampled together", min=1)] = 64,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run that was to write OUTPUT")
    ] = False,
    shuffle: Shuffle = False,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Sample responses to prompts and grade their final answers: data to train on.

    Rows have a prompt and an answer, the right one. Written are rows of prompt, completion, label,
    weight, finished and answer, one a distinct response; weight is how often it was drawn.
    """
    settings, state = _settings(locals()), processes()
    rows = _read(data, split, converter, limit, seed if shuffle else None)
    missing = {"prompt", "answer"} - set(rows.column_names)
    if missing:
        raise typer.BadParameter(
            f"{data} has no column {', '.join(sorted(missing))}; it has {rows.column_names}"
        )
    settings["rows"] = digest(rows)
    _check_parts(output, settings, resume)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = load_causal_lm(policy)
    _write_settings(parts_folder(output), settings)

    def sampled(numbers: range) -> Iterator[dict[str, Any]]:
        part = rows.select(numbers)
        rollouts = sample_rollouts(
            model,
            tokenizer,
            part["prompt"],
            n=n,
            sampling=Sampling(max_new_tokens, temperature, top_p, min_p),
            format=_format(tokenizer, "\n", chat),
            seed=seed + numbers.start,
            batch_size=batch_size,
        )
        for row, responses in zip(part, rollouts, strict=True):
            graded = _graded(row, responses)
            yield from (one for one in graded if one["completion"].strip())

    write_chunks(output, len(rows), 4 * max(1, batch_size // n), sampled, "rollouts")
    if state.is_main_process:
        console.print(_rollouts_summary(output, len(rows), n))


@app.command()
def train(
    data: Data,
    policy: Policy,
    output: Annotated[Path, typer.Option(help="folder for the trained policy; must not exist")],
    reference: Reference = None,
    converter: Converter = None,
    split: Split = "train",
    preset: PresetName = None,
    objective: ObjectiveName = "ce",
    pairing: Annotated[
        str | None,
        typer.Option(help="how dpo and nca pair responses: all (the default) or matched"),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(help="let right and wrong count alike within the dataset, or each prompt"),
    ] = None,
    beta: Beta = 0.05,
    learning_rate: Annotated[float, typer.Option(help="peak learning rate")] = 5e-7,
    epochs: Annotated[float, typer.Option(help="passes over the training data")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="rows per update, in all", min=1)] = 64,
    micro_batch_size: MicroBatch = 8,
    max_length: Annotated[
        int | None,
        typer.Option(help="leave out rows of more tokens; default: they are an error", min=1),
    ] = None,
    last_layers: LastLayers = None,
    lora_rank: LoraRank = None,
    gradient_checkpointing: Checkpointing = False,
    precision: Precision = None,
    held_out: Annotated[
        float,
        typer.Option(help="share of prompts kept from training, written to OUTPUT", min=0, max=0.9),
    ] = 0.0,
    save_every: Annotated[int, typer.Option(help="updates between checkpoints", min=1)] = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run that was interrupted in OUTPUT")
    ] = False,
    chat: Chat = None,
    shuffle: Shuffle = False,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Train a policy on outcomes: rows of prompt, completion, label.

    For dpo and nca the responses of each prompt are paired, unless the rows are prompt, chosen,
    rejected. OUTPUT gets the policy, log.csv and settings.json.
    """
    settings = _settings(locals())  # before anything else is local
    settings["processes"] = str(processes().num_processes)
    _one_of("objective", objective, tuple(OBJECTIVES))
    _one_of("pairing", pairing, ("all", "matched", None))
    _one_of("balance", balance, ("dataset", "prompt", None))
    if balance and OBJECTIVES[objective].format != "unpaired":
        raise typer.BadParameter("--balance is for ce and kto; pairs have one of each")
    if pairing and OBJECTIVES[objective].format != "preference":
        raise typer.BadParameter("--pairing is for dpo and nca; ce and kto read no pairs")
    if last_layers and lora_rank:
        raise typer.BadParameter("choose one of --last-layers and --lora-rank")
    precision = _precision(precision)
    accumulation = _accumulation(batch_size, micro_batch_size, processes().num_processes)
    _check_settings(output, settings, resume)
    processes().wait_for_everyone()  # every process has looked before one makes the folder
    set_seed(seed)
    rows = _read(data, split, converter, limit, seed if shuffle else None)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    format = _format(tokenizer, "\n", chat)  # an outcome is of a whole response
    lengths = row_lengths(rows, tokenizer, format)
    rows = _without_long(rows, lengths, max_length)
    load = _load_of(
        min(max(lengths), max_length or max(lengths)),
        objective,
        micro_batch_size,
        last_layers,
        lora_rank,
        gradient_checkpointing,
        precision,
        _shards(),
        reference is not None,
    )
    check_memory(AutoConfig.from_pretrained(policy), load, device_memory())
    parts = split_by_prompt(rows, held_out, seed) if held_out else {"train": rows}
    dataset = _for_objective(parts["train"], objective, pairing, balance, seed)
    model = load_causal_lm(policy, torch.float32)  # full-precision weights, whatever the autocast
    if reference is not None:
        check_same_tokenizer(tokenizer, AutoTokenizer.from_pretrained(reference))
    if last_layers:
        train_last_layers(model, last_layers)
    if lora_rank:
        model = with_lora(model, lora_rank)
    # Bad data or a missing model leave no folder behind; from here on there is a run to resume.
    _write_settings(output, settings)
    # Its name is about to change in transformers, which warns wherever it is set.
    saving: dict[str, Any] = {"gradient_checkpointing": True} if gradient_checkpointing else {}
    trainer = ImplicitPRMTrainer(
        model=model,
        reference=model if reference is None else load_causal_lm(reference, torch.float32),
        args=ImplicitPRMConfig(
            output_dir=str(output),
            objective=objective,
            beta=beta,
            learning_rate=learning_rate,
            num_train_epochs=epochs,
            per_device_train_batch_size=micro_batch_size,
            per_device_eval_batch_size=micro_batch_size,  # of the reference pass
            gradient_accumulation_steps=accumulation,
            bf16=precision == "bf16",
            use_cpu=processes().device.type == "cpu",  # bf16 there has to be asked for
            save_strategy="steps",
            save_steps=save_every,
            save_total_limit=1,
            logging_steps=1,
            seed=seed,
            **saving,
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
        format=format,
    )
    if resume:
        console.print(f"going on from {last_complete_checkpoint(output) or 'the start'}")
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(str(output))
    if not trainer.is_world_process_zero():
        return
    if held_out:
        (output / "held_out.jsonl").unlink(missing_ok=True)  # of a run cut off while writing it
        append_jsonl(output / "held_out.jsonl", parts["test"])
        console.print(f"{len(parts['test'])} held-out rows: {output / 'held_out.jsonl'}")
    _write_settings(output, settings | {"finished": "yes"})
    # Three times the size of the weights, and of no use once training has ended.
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    console.print(f"trained on {len(dataset)} rows: {output}")


@app.command()
def memory(
    policy: Policy,
    reference: Reference = None,
    preset: PresetName = None,
    objective: ObjectiveName = "ce",
    micro_batch_size: MicroBatch = 8,
    max_length: Annotated[int, typer.Option(help="tokens of the longest row", min=1)] = 1024,
    last_layers: LastLayers = None,
    lora_rank: LoraRank = None,
    gradient_checkpointing: Checkpointing = False,
    precision: Precision = None,
    processes: Annotated[int, typer.Option(help="GPUs that share it all (FSDP)", min=1)] = 1,
) -> None:
    """Show the memory that `train` would need on each device; loads no model.

    Rollouts are those of `rollouts`: 64 responses sampled together, as long as --max-length.
    """
    _one_of("objective", objective, tuple(OBJECTIVES))
    load = _load_of(
        max_length,
        objective,
        micro_batch_size,
        last_layers,
        lora_rank,
        gradient_checkpointing,
        _precision(precision),
        processes,
        reference is not None,
    )
    console.print(memory_table(model_config(policy), load))


@app.command()
def score(
    data: Data,
    policy: Policy,
    output: Annotated[Path, typer.Option(help="JSONL file to write; must not exist")],
    reference: Annotated[
        str | None, typer.Option(help="hub id or folder of π_ref; default: a uniform reference")
    ] = None,
    reference_cache: Annotated[
        Path | None, typer.Option(help="folder in which the reference's log-probs are kept")
    ] = None,
    converter: Converter = None,
    split: Split = "train",
    beta: Beta = 0.05,
    separator: Separator = "\\n\\n",
    chat: Chat = None,
    batch_size: Annotated[int, typer.Option(help="solutions per forward pass", min=1)] = 8,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run that was to write OUTPUT")
    ] = False,
    shuffle: Shuffle = False,
    limit: Limit = None,
    seed: Seed = 0,
) -> None:
    """Add step rewards, q-values and the outcome reward to every row.

    Rows have a prompt and either completions, a list of steps, or completion, a whole response.
    """
    settings, state = _settings(locals()), processes()
    rows = _read(data, split, converter, limit, seed if shuffle else None)
    settings["rows"] = digest(rows)
    _check_parts(output, settings, resume)
    format = _format(AutoTokenizer.from_pretrained(policy), separator, chat)
    if reference_cache is not None and reference is None:
        raise typer.BadParameter("--reference-cache needs a --reference")
    prm = ImplicitPRM.from_pretrained(
        policy, reference, beta=beta, format=format, reference_cache=reference_cache
    )
    _write_settings(parts_folder(output), settings)

    def scored(numbers: range) -> datasets.Dataset:
        return prm.score_dataset(rows.select(numbers), batch_size)

    write_chunks(output, len(rows), 32 * batch_size, scored, "scoring")
    if state.is_main_process:
        console.print(f"scored {len(rows)} solutions: {output}")


@app.command()
def evaluate(
    scored: Annotated[list[Path], typer.Argument(help="files that `implicitprm score` wrote")],
    group: Annotated[
        str | None, typer.Option(help="column within whose values AUROC is reported as well")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Judge scored rows: by their outcome labels, or by their first errors.

    With labels: AUROC, and choosing one of N where prompts have several candidates. With first
    errors: F1. Of several files with first errors, such as the splits of ProcessBench, the first
    chooses the threshold of all.
    """
    first, *others = (read_rows(str(path)) for path in scored)
    if "first_error" in first.column_names:
        for path, rows in zip(scored[1:], others, strict=True):
            if "first_error" not in rows.column_names:
                raise typer.BadParameter(f"{path} has no first_error column, unlike {scored[0]}")
        console.print(first_error_report(first, seed))
        if others:
            for rows in (first, *others):
                console.print(first_error_report(rows, seed, chosen_on=first))
    elif others:
        raise typer.BadParameter("several files are for first errors; rows with labels go in one")
    elif "label" in first.column_names:
        console.print(outcome_report(first, group, seed))
        for table in best_of_n_reports(first, seed):
            console.print(table)
    else:
        raise typer.BadParameter(
            f"{scored[0]} has neither a 'label' nor a 'first_error' column; it has "
            f"{first.column_names}"
        )


def _graded(row: dict[str, Any], rollouts: Sequence[Rollout]) -> Iterator[dict[str, Any]]:
    """The distinct responses to one prompt, with the number of times each was drawn."""
    for rollout, count in Counter(rollouts).items():
        yield {
            "prompt": row["prompt"],
            "completion": rollout.completion,
            "label": is_correct(rollout.completion, row["answer"]),
            "weight": count,
            "finished": rollout.finished,
            "answer": row["answer"],
        }


def _rollouts_summary(path: Path, prompts: int, n: int) -> str:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    drawn, kept = n * prompts, sum(row["weight"] for row in rows)
    right = sum(row["weight"] * row["label"] for row in rows)
    return f"{drawn} responses to {prompts} prompts, {right / drawn:.1%} right: {path}" + (
        f" ({drawn - kept} empty ones left out)" if drawn > kept else ""
    )


def _for_objective(
    rows: datasets.Dataset, objective: str, pairing: str | None, balance: str | None, seed: int
) -> datasets.Dataset:
    """The rows as the objective needs them; says how many prompts have both kinds of response."""
    if "chosen" in rows.column_names:
        if pairing:
            raise typer.BadParameter("--pairing is for unpaired rows; these are pairs already")
        return rows
    rows = check_format(rows, "unpaired")
    console.print(str(outcome_counts(rows)))
    if OBJECTIVES[objective].format == "preference":
        return pair_responses(rows, pairing or "all", seed)  # type: ignore[arg-type]
    return balance_labels(rows, balance) if balance else rows  # type: ignore[arg-type]


def _accumulation(batch_size: int, micro_batch_size: int, processes: int) -> int:
    """Forward passes per update and process, so that an update sees ``batch_size`` rows in all."""
    together = micro_batch_size * processes
    if batch_size % together:
        raise typer.BadParameter(
            f"batch size {batch_size} is no multiple of micro batch size {micro_batch_size}"
            + (f" × {processes} processes" if processes > 1 else "")
        )
    return batch_size // together


def _apply_preset(context: typer.Context, name: str | None) -> str | None:
    """Make a preset's options the defaults of the command; what is given explicitly wins."""
    if name is not None:
        try:
            preset = find_preset(name)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        context.default_map = {**preset.options, "processes": preset.processes}
    return name


def _load_of(
    longest: int,
    objective: str,
    micro_batch_size: int,
    last_layers: int | None,
    lora_rank: int | None,
    gradient_checkpointing: bool,
    precision: str,
    processes: int,
    reference: bool,
) -> Load:
    """What a run puts on each of its devices."""
    paired = OBJECTIVES[objective].format == "preference"
    return Load(
        sequences=micro_batch_size * (2 if paired else 1),
        tokens=longest,
        last_layers=last_layers or None,
        lora_rank=lora_rank or None,
        gradient_checkpointing=gradient_checkpointing,
        bf16=precision == "bf16",
        processes=processes,
        reference=reference,
    )


def _shards() -> int:
    """How many processes share the weights: all under FSDP, which accelerate announces so."""
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return processes().num_processes if fsdp else 1


def _precision(precision: str | None) -> str:
    _one_of("precision", precision, ("fp32", "bf16", None))
    return precision or ("bf16" if has_bf16() else "fp32")


def _without_long(
    rows: datasets.Dataset, lengths: Sequence[int], max_length: int | None
) -> datasets.Dataset:
    """The rows of at most ``max_length`` tokens; says how many were left out."""
    kept = [row for row, length in enumerate(lengths) if length <= (max_length or length)]
    if not kept:
        raise typer.BadParameter(f"every row is longer than {max_length} tokens")
    if len(kept) < len(rows):
        console.print(f"{len(rows) - len(kept)} rows of more than {max_length} tokens left out")
    return rows.select(kept)


def _settings(options: dict[str, Any]) -> dict[str, str]:
    """What a run was started with; two options may differ when it is resumed."""
    return {n: str(value) for n, value in options.items() if n not in ("output", "resume")}


def _check_parts(output: Path, settings: dict[str, str], resume: bool) -> None:
    """As :func:`_check_settings`, for a file that is written in parts; for every process."""
    if output.exists():
        raise typer.BadParameter(f"{output} exists; name another file or remove it")
    _check_settings(parts_folder(output), settings, resume)
    processes().wait_for_everyone()  # every process has looked before one makes the folder


def _check_settings(output: Path, settings: dict[str, str], resume: bool) -> None:
    """A new run needs a new folder; a resumed one the settings that it was started with."""
    if not resume:
        if output.exists():
            raise typer.BadParameter(
                f"{output} exists; name another output, remove it, or --resume its run"
            )
        return
    if not (output / SETTINGS).is_file():
        raise typer.BadParameter(f"there is no run to resume in {output}")
    before = json.loads((output / SETTINGS).read_text(encoding="utf-8"))
    if "finished" in before:
        raise typer.BadParameter(f"the run in {output} has finished; there is nothing to resume")
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        differences = ", ".join(f"{n}: {before.get(n)} → {settings[n]}" for n in changed)
        raise typer.BadParameter(f"a resumed run keeps its settings; changed: {differences}")


def _write_settings(output: Path, settings: dict[str, str]) -> None:
    if processes().is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        scratch = output / f"{SETTINGS}.new"
        scratch.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        scratch.replace(output / SETTINGS)  # whole or not at all


def _one_of(name: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice)
        raise typer.BadParameter(f"{name} {value!r} is unknown; choose one of {known}")


def _read(
    data: str, split: str, converter: str | None, limit: int | None, shuffle_seed: int | None
) -> datasets.Dataset:
    rows = read_rows(data, split, limit if shuffle_seed is None else None)
    if shuffle_seed is not None:
        rows = rows.shuffle(shuffle_seed)
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
