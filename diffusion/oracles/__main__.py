"""Test whether an estimator is a bound on -log p(x), on languages whose entropy is known.

Examples:
  python -m diffusion.oracles --estimator=bound_continuous
  python -m diffusion.oracles --estimator=bound_steps_8 --language=markov
  python -m diffusion.oracles --estimator=joint_ce
  python -m diffusion.oracles --estimator=bound_steps_8 --digits=2
  python -m diffusion.oracles --estimator=nll_autoregressive --digits=2
  python -m diffusion.oracles --process=uniform --estimator=bound_uniform
  python -m diffusion.oracles --estimator=my_module:my_function

The signature of my_function is (denoise, process, tokens [B, L], weights [B, L], draws) -> nats [B]; see
diffusion/likelihood/estimators.py. The command prints the entropy of the language, the estimate under the exact
denoiser, the Kraft sum under exact and wrong denoisers, and a verdict. Exit status: 0 a bound that equals the entropy
under the exact denoiser (tight), 3 a bound above it, 1 not a bound, 2 invalid input.
"""

import sys
from pkgutil import resolve_name
from traceback import extract_tb
from typing import cast

from absl import flags

from diffusion.likelihood.estimators import CAUSAL, Estimate
from diffusion.oracles.check import TOLERANCE, Check, check_estimator
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.markov import random_chain
from diffusion.oracles.processes import PROCESSES, Language
from diffusion.types import MaskedProcess, Process

# Estimators that equal others for whole tokens.
SUBTOKEN_ESTIMATORS = ("joint_ce", "bound_marginal", "bound_grouped")

FLAGS = flags.FlagValues()
flags.DEFINE_string("estimator", None, "Name of an estimator, or module:function.", flag_values=FLAGS)
flags.DEFINE_enum(
    "process",
    "masked",
    list(PROCESSES),
    "The noise, which decides the exact denoiser: the posterior of masked tokens, or the leave-one-out posterior.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "language",
    "enumerable",
    ["enumerable", "markov"],
    "enumerable: 25 to 81 sequences of 2 to 4 tokens, with Kraft sums; markov: a chain of length 256.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "digits",
    0,
    f"Sub-tokens per token (MDM-Prime); 0: 2 for {', '.join(SUBTOKEN_ESTIMATORS)}, else 1.",
    lower_bound=0,
    upper_bound=3,
    flag_values=FLAGS,
)
flags.DEFINE_integer("draws", 4096, "Draws per sequence (markov: in total).", lower_bound=64, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of the language, the draws and the wrong denoisers.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "causal", False, "Call module:function with a causal network, which reads clean prefixes.", flag_values=FLAGS
)
flags.DEFINE_boolean("help", False, "Show this help.", short_name="h", flag_values=FLAGS)


LANGUAGES = {
    "enumerable": lambda seed: random_language(seed, *PROCESSES[FLAGS.process].shape),
    "digits": lambda seed: random_language(seed, vocabulary=5, length=2),
    "markov": lambda seed: random_chain(seed, vocabulary=8, length=256),
}


def load_estimator(name: str | None) -> Estimate:
    """Look up an estimator by name, or import module:function.

    Raises:
      ValueError: for a missing or unknown name, and for a function that cannot be imported.
    """
    if not name:
        raise ValueError("--estimator: is required; for example --estimator=bound_continuous")
    if ":" not in name:
        return PROCESSES[FLAGS.process].estimator(name)
    try:
        function = resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--estimator: cannot load {name!r} ({error}); run from the module's folder") from None
    if not callable(function):
        raise ValueError(f"--estimator: {name!r} is not a function")
    return cast(Estimate, function)


def run_checks(estimate: Estimate, language: Language, process: Process | MaskedProcess, causal: bool) -> list[Check]:
    """Run the checks.

    Raises:
      ValueError: for an exception in the estimator; the message names its file and line.
    """
    try:
        return check_estimator(estimate, language, process, causal=causal, draws_each=FLAGS.draws, seed=FLAGS.seed)
    except Exception as error:
        frame = extract_tb(error.__traceback__)[-1]
        line = str(error).strip().splitlines()[:1] or [""]
        place = f"{frame.filename}:{frame.lineno}"
        raise ValueError(
            f"--estimator: {FLAGS.estimator!r} failed: {type(error).__name__}: {line[0]} ({place})"
        ) from None


def print_report(checks: list[Check], language: Language, digits: int) -> int:
    """Print the checks and the verdict, and return the exit status."""
    exact = checks[0]
    subtokens = f", {digits} sub-tokens per token" if digits > 1 else ""
    print(f"language   {FLAGS.language}: {language.vocabulary} tokens, length {language.length}{subtokens}")
    print(f"entropy    {language.entropy():.6f} nats per sequence")
    print(f"estimate   {exact.value:.6f} +- {exact.error:.6f} nats under the exact denoiser")
    for check in checks[1:]:
        sign = "<=" if check.at_most else ">="
        print(
            f"  {check.quantity:13} {check.denoiser:9} {check.value:10.6f} +- {check.error:.6f}"
            f"  must be {sign} {check.limit:.6f}  {'ok' if check.passed else 'VIOLATED'}"
        )
    failed = [check for check in checks if not check.passed]
    if failed:
        worst = max(failed, key=lambda check: -check.slack if check.slack == check.slack else float("inf"))
        relation = "above" if worst.at_most else "below"
        print(
            f"verdict    not a bound: {worst.quantity} {worst.value:.4f} +- {worst.error:.4f} under the "
            f"{worst.denoiser} denoiser is {relation} {worst.limit:.4f} ({len(failed)} of {len(checks)} violated)"
        )
        return 1
    if abs(exact.value - exact.limit) <= TOLERANCE * exact.error + 1e-3:
        print("verdict    a bound, tight: no check violated; under the exact denoiser it equals the entropy")
        return 0
    above = exact.value - exact.limit
    print(
        "verdict    a bound, not tight: no check violated; under the exact denoiser it is "
        f"{above:.4f} nats above the entropy"
    )
    return 3


def main(argv: list[str]) -> int:
    """Run the command, and return its exit status."""
    try:
        rest = FLAGS(argv)[1:]
        if FLAGS.help:
            print((__doc__ or "").strip(), FLAGS.main_module_help(), sep="\n\n")
            return 0
        if rest:
            raise ValueError(f"unexpected argument {rest[0]!r}; see --help")
        estimate = load_estimator(FLAGS.estimator)
        digits = FLAGS.digits or (2 if FLAGS.estimator in SUBTOKEN_ESTIMATORS and FLAGS.language == "enumerable" else 1)
        if digits > 1 and FLAGS.language != "enumerable":
            raise ValueError("--digits: values above 1 need --language=enumerable")
        causal = FLAGS.causal or FLAGS.estimator in CAUSAL
        known = PROCESSES[FLAGS.process]
        if not known.digits and (digits > 1 or causal):
            raise ValueError(f"--process: {FLAGS.process} goes with --digits=1 and without --causal")
        language = LANGUAGES["digits" if digits > 1 else FLAGS.language](FLAGS.seed)
        process = known.make(language.vocabulary, language.length, digits)
        checks = run_checks(estimate, language, process, causal)
    except (ValueError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return print_report(checks, language, digits)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
