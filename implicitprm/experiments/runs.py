"""What the experiments share: training a PRM in the arithmetic world."""

from __future__ import annotations

import tempfile

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.rewards import ImplicitPRM
from implicitprm.training import ImplicitPRMConfig, ImplicitPRMTrainer

EPOCHS = 3


def train_prm(
    dataset: Dataset,
    generator: str = "reasoner",
    *,
    objective: str = "ce",
    beta: float,
    learning_rate: float,
    seed: int,
    attention: str = "sdpa",
) -> ImplicitPRM:
    """Train from a generator, which is also the reference, on outcome labels of its rollouts."""
    folder = checkpoint_path(generator)
    policy = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    reference = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = ImplicitPRMTrainer(
            model=policy,
            reference=reference,
            args=ImplicitPRMConfig(
                output_dir=scratch,
                objective=objective,
                beta=beta,
                learning_rate=learning_rate,
                num_train_epochs=EPOCHS,
                save_strategy="no",
                disable_tqdm=True,
                seed=seed,
            ),
            train_dataset=dataset,
            processing_class=tokenizer,
            format=ARITHMETIC_FORMAT,
        )
        trainer.train()
    return ImplicitPRM(policy.eval(), reference.eval(), tokenizer, beta, ARITHMETIC_FORMAT)
