"""Which objects of a shard folder a protocol scores."""

from vcgen.data.shards.files import ShardIndex
from vcgen.errors import UserError
from vcgen.evaluation.protocol import Protocol
from vcgen.evaluation.selection import Task
from vcgen.terminal import complain


def scored(index: ShardIndex, objects: list[tuple[str, int]], protocol: Protocol) -> list[tuple[str, int]]:
    """The ``objects``, (key, number), that the protocol does not leave out. Raises UserError where the data does not
    have the views that it wants; of all objects, unless they must be read for that.
    """
    if not protocol.by_name:
        for number in range(len(index.samples)):
            tasks_of(index, number, protocol)
    if lists := protocol.lists:
        absent, total = lists.absent([entry.key for _, entry in index.samples])
        if absent == total:
            found = f"holds none of the {total} objects of {lists.where}"
            raise UserError(f"{index.folder}: {found}; pack the data that protocol {protocol.name} is for")
        if absent:
            found = f"{absent} of the {total} objects of {lists.where} are not in it"
            complain(f"{index.folder}: {found}: the mean is over fewer objects than the protocol's", "warning")
    return [(key, number) for key, number in objects if tasks_of(index, number, protocol)]


def tasks_of(index: ShardIndex, number: int, protocol: Protocol) -> list[Task]:
    """The reconstructions of the scene at a position of the index."""
    entry = index.scenes[number]
    return protocol.tasks(entry.key, entry.views, index.read(number).views if protocol.by_name else ())
