"""What happens to scenes that cannot be read: the run stops, or they are left out, named and counted."""

from collections.abc import Iterable, Mapping

from vcgen.data.shards.files import ShardIndex
from vcgen.data.shards.record import decode_views
from vcgen.errors import UserError
from vcgen.terminal import complain

#: A data set of which more than this fraction cannot be read is no longer the data set the user means.
MOST_BAD = 0.05


class Faults:
    """The scenes of an index that this process has found unreadable, by key, each with its reason. Every new one is
    said once on stderr.
    """

    def __init__(self, index: ShardIndex):
        self.index = index
        self.reasons: dict[str, str] = {}

    def add(self, reasons: Mapping[str, str]) -> None:
        """Note scenes. Raises UserError when more than ``MOST_BAD`` of the index have come together."""
        for key in reasons.keys() - self.reasons.keys():
            complain(f"scene {key} is skipped: {reasons[key]}", "warning")
        self.reasons.update(reasons)
        refuse_too_many(self.index, len(self.reasons), next(iter(reasons.values()), ""))


def check_shards(index: ShardIndex, say: bool = True) -> None:
    """Say which shards are missing or cut short, and go on. Raises UserError when they held more than ``MOST_BAD`` of
    the scenes.
    """
    bad, reason = 0, ""
    for shard in index.shards:
        if reason_here := index.fault_of(shard):
            bad, reason = bad + len(shard.samples), reason_here
            if say:
                complain(f"{len(shard.samples)} scenes are skipped: {reason_here}", "warning")
    refuse_too_many(index, bad, reason)


def refuse_too_many(index: ShardIndex, bad: int, reason: str) -> None:
    """Raise UserError when ``bad`` is more than ``MOST_BAD`` of the scenes, and more than one. reason: of one of
    them.
    """
    if bad > max(1, MOST_BAD * len(index.samples)):
        found = (
            f"{bad} of {len(index.samples)} scenes cannot be read, more than on_error: skip leaves out ({MOST_BAD:.0%})"
        )
        raise UserError(f"{index.folder}: {found}; one of them: {reason}")


def fault_in(index: ShardIndex, number: int) -> str | None:
    """Why a scene cannot be used, or None when it and all its images can be read."""
    try:
        record = index.read(number)
        decode_views(record, range(len(record.images)))
    except UserError as error:
        return str(error)
    return None


def faults_among(index: ShardIndex, numbers: Iterable[int]) -> dict[str, str]:
    """Try scenes beforehand: those that cannot be used, by key, each with its reason; named and refused as
    :class:`Faults` does.
    """
    reasons = {index.scenes[number].key: fault_in(index, number) for number in numbers}
    faults = Faults(index)
    faults.add({key: reason for key, reason in reasons.items() if reason})
    return faults.reasons
