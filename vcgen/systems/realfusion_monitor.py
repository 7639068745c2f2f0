"""Watches a scene while it is fitted, and says in one line what to change when it goes wrong."""

import warnings
from collections import deque

import torch

from vcgen.evaluation.janus import janus
from vcgen.systems.realfusion_outcome import Sides

#: Steps over which opacity and entropy are averaged.
WINDOW = 20
#: Mean opacity of random views below which a scene is empty, above which it fills the frame.
EMPTY, FULL = 0.01, 0.95
#: Mean entropy of opacity, in bits, above which a scene is fog; for the second half of a run.
FOG = 0.4
#: Score from which the sides resemble the front. Objects that are alike on all sides reach it, too.
MANY_FACES = 0.85


class SceneMonitor:
    """Each warning comes once."""

    def __init__(self):
        self.opacity, self.entropy = deque(maxlen=WINDOW), deque(maxlen=WINDOW)
        self.said: set[str] = set()
        self.last_score: float | None = None

    def watch(self, opacity: float, entropy: float, progress: float) -> None:
        """Of one step: mean opacity of its random views, mean entropy of it in bits, share of the run that is over."""
        self.opacity.append(opacity)
        self.entropy.append(entropy)
        if len(self.opacity) < WINDOW:
            return
        mean, bits = (sum(values) / WINDOW for values in (self.opacity, self.entropy))
        if mean < EMPTY:
            self.say("empty", f"the scene is empty (mean opacity {mean:.3f}): raise weights.mask or the blob, lower weights.opacity or sds")
        elif mean > FULL:
            self.say("full", f"the scene fills the frame (mean opacity {mean:.3f}): raise weights.mask, lower density_bias")
        elif progress > 0.5 and bits > FOG:
            self.say("fog", f"the scene is fog (mean entropy of opacity {bits:.2f} bits): raise weights.entropy, or train for longer")

    def faces(self, sides: Sides) -> float:
        """The score of repeated faces of four sides, the first the front; 0 for an empty scene."""
        alpha = torch.from_numpy(sides.alpha)[:, None]
        over_white = torch.from_numpy(sides.colour).movedim(-1, 1) / 255
        colour = ((over_white - (1 - alpha)) / alpha.clamp(min=1e-3)).clamp(0, 1)
        self.last_score = janus(colour, alpha)
        return self.last_score

    def finish(self) -> None:
        """At the end of a run."""
        if self.last_score is not None and self.last_score > MANY_FACES:
            advice = "where it should not, set prompt.negative_views for the back, or lower options.scale"
            self.say("faces", f"other sides resemble the front (val/janus {self.last_score:.2f}): {advice}")

    def say(self, what: str, line: str) -> None:
        """Warn, unless that has been said."""
        if what not in self.said:
            self.said.add(what)
            warnings.warn(line, stacklevel=2)
