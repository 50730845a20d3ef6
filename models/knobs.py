"""Option rows of MVE's, and one of ours (`lr_fade`), that change a step: how far weights move, and what the drawn faces
are compared by.

DFL's record has no key for them, so they are kept beside it; they are asked with `--all-questions`. With their defaults
a step is DFL's.
"""

from __future__ import annotations

from core.options import Answers, Option


def clips(answers: Answers) -> bool:
    return bool(answers["clipgrad"])


def has_target(answers: Answers) -> bool:
    return bool(answers["target_iter"])


def lr_share(answers: Answers, iteration: int) -> float:
    """What of its learning rate the step that follows `iteration` has: see `lr_fade`."""
    span, target = int(answers["lr_fade"]), int(answers["target_iter"])
    return min(1.0, (target - iteration) / span) if span and iteration < target else 1.0


KNOBS = (
    Option(
        "lr", "float", "Learning rate",
        "How far an iteration moves the weights, those of the GAN too. The default is DeepFaceLab's for this model.",
        advice="Lower, such as 2e-5, for the last refinement, or for a model that collapses again and again. With 0 "
        "nothing moves.",
        default=5e-5, low=0.0, high=1.0, ask="advance", stored=False, group="training",
    ),
    Option(
        "lr_fade", "int", "Iterations over which the learning rate falls to 0",
        "Lets the learning rate fall evenly to 0 over the last so many iterations before the target: weights, which "
        "go to and fro with every batch, settle. With the target's own number it falls from the start on. 0 leaves it "
        "as it is.",
        advice="A tenth of the target, for the end of a training. A higher target later brings the rate back.",
        default=0, low=0, high=1_000_000_000, when=has_target, condition="if there is a target iteration",
        ask="advance", stored=False, group="training",
    ),
    Option(
        "weight_decay", "float", "Weight decay",
        "Shrinks the weights a little with every iteration, by learning rate times this, besides what they learn. It "
        "is for the kernels of convolutions and dense layers of the network; biases, norms and the GAN have none. With "
        "learning rate dropout it is a third as strong.",
        advice="0.01 to 1, against weights that grow without end in a very long training. Most models need none.",
        default=0.0, low=0.0, high=1000.0, ask="advance", stored=False, group="training",
    ),
    Option(
        "clipgrad_mode", "choice", "Gradient clipping mode",
        "What gradient clipping limits the gradient's norm to: norm to 1, as DeepFaceLab; history to what a tenth of "
        "the last 1000 iterations' norms stayed below (AutoClip), so that the limit follows the training.",
        advice="history where a norm of 1 clips every iteration, or none.",
        default="norm", choices=("norm", "history"), when=clips, condition="if gradient clipping is on", ask="advance",
        stored=False, group="training",
    ),
    Option(
        "loss_function", "choice", "Loss function",
        "What drawn faces are compared with their targets by. SSIM is DeepFaceLab's: structure at one scale (two from "
        "256 px on, and in AMP), and squares of differences. MS-SSIM sees structure at three to five scales, and "
        "squares. MS-SSIM+L1 takes differences as they are, not their squares. The losses are other numbers then.",
        advice="SSIM, unless you want to try.",
        default="SSIM", choices=("SSIM", "MS-SSIM", "MS-SSIM+L1"), aliases=("loss",),
        spellings=(("m_ssim", "MS-SSIM"), ("ms_ssim", "MS-SSIM"), ("msssim", "MS-SSIM"), ("MS_SSIM", "MS-SSIM"),
                   ("ms_ssim+l1", "MS-SSIM+L1"), ("MS_SSIM+L1", "MS-SSIM+L1")),
        ask="advance", stored=False, group="loss",
    ),
)  # fmt: skip
OF_ANY = tuple(row.key for row in KNOBS if row.group == "training")
"""Those that a model with any loss has."""
