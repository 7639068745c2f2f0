"""Watches a scene while it is fitted, and says in one line what to change when it goes wrong."""

import math
import statistics
import warnings
from collections import deque

import torch

from vcgen.metrics.janus import janus
from vcgen.systems.text_to_3d.outcome import Sides

#: Steps over which opacity and entropy are averaged.
WINDOW = 20
#: Mean opacity of views below which a scene is empty, above which it fills the frame.
EMPTY, FULL = 0.01, 0.95
#: Mean entropy of opacity, in bits, above which a scene is fog; for the second half of a run.
FOG = 0.4
#: Gradient norms that a running median is taken of, how many times it is far too much, and for how many steps in a row.
NORMS, TIMES, IN_A_ROW = 100, 100.0, 5
#: Score from which the sides resemble the front. Objects that are alike on all sides reach it, too.
MANY_FACES = 0.85


class SceneMonitor:
    """Each warning comes once.

    more: the options that make for more matter. less: those for less.
    """

    def __init__(self, more: str = "the blob", less: str = "raise weights.opacity") -> None:
        self.more, self.less = more, less
        self.opacity: deque[float] = deque(maxlen=WINDOW)
        self.entropy: deque[float] = deque(maxlen=WINDOW)
        self.norms: deque[float] = deque(maxlen=NORMS)
        self.large = 0
        self.warned: set[str] = set()

    def watch(self, opacity: float, entropy: float, progress: float) -> None:
        """Note of one step: mean opacity of its random views, mean entropy of it in bits, fraction of the run that is
        over.
        """
        self.opacity.append(opacity)
        self.entropy.append(entropy)
        if len(self.opacity) < WINDOW:
            return
        mean, bits = (sum(values) / WINDOW for values in (self.opacity, self.entropy))
        if mean < EMPTY:
            self.say(
                "empty",
                f"the scene is empty (mean opacity {mean:.3f}): raise {self.more}, lower weights.opacity or sds",
            )
        elif mean > FULL:
            self.say("full", f"the scene fills the frame (mean opacity {mean:.3f}): {self.less}, lower density_bias")
        elif progress > 0.5 and bits > FOG:
            self.say(
                "fog",
                f"the scene is fog (mean entropy of opacity {bits:.2f} bits): raise weights.entropy, or train for"
                " longer",
            )

    def watch_gradients(self, norm: float) -> None:
        """Note of one step: the norm of all gradients, before clipping. One that is not finite is left out: the step
        is, too.
        """
        if not math.isfinite(norm):
            return
        usual = statistics.median(self.norms) if len(self.norms) >= WINDOW else 0.0
        self.large = self.large + 1 if 0 < TIMES * usual < norm else 0
        self.norms.append(norm)
        if self.large >= IN_A_ROW:
            found = (
                f"gradients have grown to {norm / usual:.0f} times what they were (norm {norm:.2g}, median {usual:.2g})"
            )
            self.say(
                "gradients",
                f"{found}: lower options.grid_lr and network_lr, or options.guidance_scale, or set"
                " trainer.gradient_clip_val",
            )

    def faces(self, sides: Sides, progress: float) -> float:
        """The score of repeated faces of four sides, the first the front, when the fraction ``progress`` of the run is
        over; NaN, which is never best, for an empty scene, and where neither the front nor another side has an opaque
        pixel. In the first half of a run, where the scene is still coarse, a high score is no news."""
        alpha = torch.from_numpy(sides.alpha)[:, None]
        opaque = (alpha > 0.5).flatten(1).any(1)
        if alpha.mean() < EMPTY or not (opaque[0] or opaque[1:].all()):
            return math.nan
        over_white = torch.from_numpy(sides.color).movedim(-1, 1) / 255
        color = ((over_white - (1 - alpha)) / alpha.clamp(min=1e-3)).clamp(0, 1)
        score = janus(color, alpha)
        if progress >= 0.5 and score > MANY_FACES:
            advice = "where it should not, set prompt.negative_views for the back, or lower options.guidance_scale"
            self.say("faces", f"other sides resemble the front (val/janus {score:.2f}): {advice}")
        return score

    def say(self, what: str, line: str) -> None:
        """Warn, unless that has been said."""
        if what not in self.warned:
            self.warned.add(what)
            warnings.warn(line, stacklevel=2)
