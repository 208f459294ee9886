"""Two hints for each exercise: a question to think about, then a way to begin."""

from __future__ import annotations

#: For the exercises of the chapters, by the name that `check` knows.
_OF_CHAPTERS: dict[str, tuple[str, str]] = {
    "weighted_vote": (
        "What is the weight of one candidate, and whose weights are added up?",
        "A dictionary from answer to total, all 0 at first; add σ of the candidate's lowest step "
        "reward to the total of its answer.",
    ),
    "token_logps": (
        "The logits at position t are a distribution over which token? So which position belongs "
        "to the token at t?",
        "log_softmax of all logits but the last along the vocabulary; gather all tokens but the "
        "first from it, put a column of zeros in front, and multiply by the mask.",
    ),
    "q_values": (
        "What must a position of the prompt, or of the padding, add to the running sum?",
        "β times the difference of the log-probabilities, set to 0 outside the response; then add "
        "up along the tokens.",
    ),
    "implicit_value": (
        "The reward 3 at β = 0.001 asks for exp(3000). Which number could be taken out of the mean "
        "of exponentials, as a factor, so that none of them overflows?",
        "Take the largest reward out: it is added to β times the logarithm of the mean of "
        "exp((r − largest)/β), whose largest term is 1.",
    ),
    "step_ends": (
        "Which one character of a token decides to which step it belongs?",
        "The end of a step is the number of tokens that start before the next step does; for the "
        "last step it is the number of all tokens.",
    ),
    "ce_loss": (
        "What is log(1 − σ(r)) in float32 when r is 150? Can the same number be had without "
        "taking σ first?",
        "1 − σ(r) is σ(−r), and torch has the logarithm of σ as one function. Turn the sign of the "
        "rewards of wrong responses; then the weighted sum over the sum of the weights.",
    ),
    "kto_loss": (
        "z stands for a KL divergence. Which values can a mean of mismatched rewards have that a "
        "divergence cannot?",
        "z is the mean of the mismatched rewards, at least 0. Turn the sign of r − z for wrong "
        "responses; then the mean of 1 − σ.",
    ),
    "best_of_n": (
        "The candidate of rank k wins: where in the ranking are the n − 1 others?",
        "They come from the k − 1 lower ones: a binomial coefficient, divided by the number of all "
        "subsets of n. Add these chances up over the right candidates.",
    ),
    "autopsv_labels": (
        "From which number is the change of the first step measured? And what is a step worth that "
        "follows a wrong one?",
        "Go through the steps and remember the confidence before each, the prior at first; once a "
        "relative change is below the threshold, all that follows is wrong.",
    ),
    "instructions_with_pair": (
        "In which two cases do n responses to an instruction give no pair?",
        "All right, or all wrong: subtract both chances from 1 for each instruction, and add up. "
        "Expectations add up.",
    ),
    "uniform_rewards": (
        "Which probability does a uniform reference give to one token, and to a step of n tokens?",
        "log π_ref of a step is −n·log V; β times the difference of the two logarithms.",
    ),
    "first_error_f1": (
        "Which of several steps below the threshold does the protocol ask for, and what is the "
        "answer where there is none?",
        "An answer for each solution first; then the share of exact answers among solutions with "
        "an error, the same among those without, and the harmonic mean of the two.",
    ),
    "rloo_advantages": (
        "How do you get the mean of the others from the sum of the whole group?",
        "Reshape the rewards to one row a prompt; a row's sum without the entry itself, by K − 1, "
        "is the baseline of that entry.",
    ),
    "training_memory": (
        "Of what does a run keep a number for every parameter, and of what only for those that are "
        "trained?",
        "float32 takes 4 bytes. Weights are there for all; a gradient and AdamW's two moments for "
        "what is trained. All of it is divided among the processes.",
    ),
    "tokens_read": (
        "How many rows has a batch, and how long is each of them, padding included?",
        "The prompt but for its last token, once. Sort the responses, longest first, cut them into "
        "batches; each row, with that last token and without its own, is as long as the longest.",
    ),
    "interval_finding": (
        "Two questions, in which order? Where is 0, and where are the ends?",
        "First whether 0 lies outside the interval. Only then whether both ends are within the "
        "margin; what is left is undecided.",
    ),
}

#: For the exercises of the sheets, by the function to write, or the sheet's number and a word.
_OF_SHEETS: dict[str, tuple[str, str]] = {
    "best_answer": (
        "Each solution gets one number first. Which one, if a single wrong step spoils it?",
        "Make a list with the minimum of each array, and find the position of its largest entry.",
    ),
    "00-ceiling": (
        "The rows are different completions, and several of them can end with the same answer "
        "of the same problem. What has to be added up?",
        "A dictionary from prompt to a Counter of answers; count row['weight'], not rows. Note "
        "the label of each pair of prompt and answer on the way.",
    ),
    "step_rewards": (
        "Each token has one number. Which tokens does an exclusive end leave to the next step?",
        "A step's tokens are the slice from the end of the step before, or 0, to its own end.",
    ),
    "01-beta": (
        "The logarithm of a product is a sum, and the reward is β times a logarithm. What "
        "undoes a logarithm?",
        "The log-ratio of the whole response is reward / β; a mean per token divides it by the "
        "number of tokens.",
    ),
    "q_by_expectation": (
        "From the inside out: divide, take the exponential, average, take the logarithm, multiply.",
        "The average weighs each completion by its probability under π_ref, and these add up to 1.",
    ),
    "02-normalised": (
        "Write the expectation out: it has two terms, and it must be 1 for its logarithm to be 0.",
        "Solve p·exp(x) + (1 − p)·exp(−1) = 1 for x. For the ceiling let the second term go to 0.",
    ),
    "expected_max": (
        "With which chance are all k draws among the j lowest? And what is the difference "
        "between j and j − 1?",
        "Sort the rewards; the one of rank j is the maximum with chance (j/M)^k − ((j−1)/M)^k.",
    ),
    "03-beta": (
        "E exp(r/β) has two terms here, each with probability one half.",
        "The value falls from 1 to 0.5 as β grows: halve an interval of β until it is narrow, "
        "or try a fine grid.",
    ),
    "merged_counts": (
        "What remembers keys in the order in which they first came?",
        "A dictionary from completion to count; add 1 for each completion, and return its values.",
    ),
    "04-counts": (
        "A row stands for `weight` rollouts. Which of the three shares divides by the sum of "
        "weights?",
        "of_rollouts is a weighted mean of the labels, of_rows a plain one; every rollout "
        "beyond the first of its row is a repeat.",
    ),
    "ce_gradient": (
        "Differentiate −log σ(r) by r, and −log σ(−r); both can be written with σ(r).",
        "For a right response it is σ(r) − 1, for a wrong one σ(r): one formula with the label "
        "does both. Mind the mean.",
    ),
    "05-constant": (
        "The loss is −p·log σ(c) − (1 − p)·log σ(−c). Where is its derivative 0?",
        "At σ(c) = p. Put that back into the loss; σ(−c) is 1 − p.",
    ),
    "dpo_over_pairs": (
        "How many pairs do two right and three wrong responses make?",
        "Two loops, or rewards[labels][:, None] minus rewards[~labels][None, :]; the loss of "
        "each difference, then the mean.",
    ),
    "06-shift": (
        "DPO sees r_w − r_l only. What does s do to that difference?",
        "The cross-entropy is log(1 + exp(−(3 + s))) + log(1 + exp(1 + s)). Where do its two "
        "terms pull equally hard?",
    ),
    "pass_at_n": (
        "It is easier to count the draws without any right candidate.",
        "All n come from the total − right wrong ones: divide two binomial coefficients, and "
        "subtract from 1.",
    ),
    "07-blind-spot": (
        "Draw for each candidate whether it is right, and for each wrong one whether it is in "
        "the blind spot.",
        "Arrays of shape (problems, n): right, blind, scores; scores.argmax(axis=1) picks one "
        "candidate a problem.",
    ),
    "soft_and_hard": (
        "Both labels look along the completions of one step. Which axis is that?",
        "A mean and an any along axis 1, as the two rows of one array.",
    ),
    "08-ratio": (
        "Write both costs per response token: what is read, what is trained on, what is generated?",
        "Cross-entropy costs 2 + 6, Math-Shepherd 6 + 2·K·S·f. For the second number solve for "
        "K·S·f.",
    ),
    "expected_distinct": (
        "With which chance is a given response drawn at least once?",
        "It is missing with chance (1 − p)^n. Expectations add up, whether or not the events "
        "depend on each other.",
    ),
    "09-mixed": (
        "Different rows of a prompt are different completions. Which labels occur?",
        "A dictionary from prompt to the set of its labels; count sets that are {True}, "
        "{False}, or both.",
    ),
    "step_label_loss": (
        "What must the loss of a wrong step do when its reward rises?",
        "Multiply each reward by its label, take −log σ of the product, then the mean over steps.",
    ),
    "10-uniform": (
        "log(1/V) = −log V, for each token.",
        "Equal rewards: β·(log π_θ + n·log V) is the same for both. With equal n the second "
        "term is the same number for both.",
    ),
    "step_auroc": (
        "Compare every right step with every wrong one: won, lost, or tied.",
        "rewards of right [:, None] against wrong [None, :]; the share that is larger, plus "
        "half the share that is equal.",
    ),
    "11-minimum": (
        "For one solution with S steps, with which chance is the minimum on a given step?",
        "Average 1/S over rollouts; a row counts `weight` times.",
    ),
    "process_advantages": (
        "In which order: the mean of a response, the mean of the others, the difference, the sum "
        "to the end? And what must padding be before the last of these?",
        "Means per step from sums and numbers of steps; reshape them to (G, K), where the others' "
        "mean is the row's sum without the entry itself, by K − 1. Add up each row from its right "
        "end.",
    ),
    "12-temperature": (
        "Write the two weights out: with rewards 0 and −1 they are 1 and exp(1/T), over their sum.",
        "The credit is −exp(1/T) / (exp(1/T) + m) with m steps of reward 0. Set it to −0.9 and "
        "solve for exp(1/T) first.",
    ),
    "15-interval": (
        "Which array holds one number per problem, paired between the two rules?",
        "Subtract per problem first, then resample problems: paired_difference does both.",
    ),
}

#: Every exercise that has hints.
HINTS: dict[str, tuple[str, str]] = _OF_CHAPTERS | _OF_SHEETS


def hint(name: str, number: int = 1) -> None:
    """Print hint ``number`` (1 or 2) for the exercise ``name``.

    Raises ValueError where there is none.
    """
    if name not in HINTS:
        raise ValueError(f"no hints for {name!r}; there are hints for {', '.join(HINTS)}")
    if number not in (1, 2):
        raise ValueError(f"there are hints 1 and 2, not {number!r}")
    print(f"Hint {number} of 2: {HINTS[name][number - 1]}")
