"""`vcgen data pack FORMAT` as the tests of formats call it."""

from training import refusal
from vcgen.cli.main import main
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import SceneRecord


class Packing:
    """Of one format; options: given in every call."""

    def __init__(self, form: str, *options: str):
        self.form, self.options = form, options

    def pack(self, source, out, *options: str) -> int:
        """The command's exit status."""
        return main(["data", "pack", self.form, str(source), str(out), *self.options, *options])

    def packed(self, source, out, *options: str) -> SceneRecord:
        """The first scene."""
        assert self.pack(source, out, *options) == 0
        return read_index(out).read(0)

    def refused(self, capsys, source, out, *options: str) -> str:
        """The one line of a refusal, which leaves nothing behind."""
        line = refusal(capsys, self.pack(source, out, *options))
        assert not out.exists()
        return line


def keys(out) -> list[str]:
    """Of all scenes of a shard folder."""
    return [sample.key for _, sample in read_index(out).samples]
