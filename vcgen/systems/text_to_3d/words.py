"""Loading a text prior with what was learned of an object, and checking the prompt against it."""

from pathlib import Path

from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.personalization.base import load_personal
from vcgen.systems.text_to_3d.options import Prompt


def load_prior(name: str, download: bool, learned: Path | None, prompt: Prompt) -> tuple[TextPrior, Prompt]:
    """The prior, personalized where a folder of a run of Personalize is given, and the prompt with the name that was
    learned. Raises UserError where the words would not reach the network.
    """
    prior = TextPrior.load(name, download)
    if phrase := load_personal(prior, learned):
        prompt = prompt.with_learned(phrase)
    elif learned and prompt.subject is None:
        raise UserError(f"{learned} does not say what names the object: give model.prompt.subject, as 'sks car'")
    prompt.check(prior, phrase)
    return prior, prompt
