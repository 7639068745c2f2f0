"""Scenes per second of the training shards, and of loose files as they are usually read."""

import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from scaling_parts import BATCH, TARGETS, TRAIN
from vcgen.data.datamodules.stream import SceneStream
from vcgen.data.shards.files import ShardIndex, read_index


class LooseScenes(Dataset):
    """The usual way: a folder per scene with a PNG per view and a JSON file of cameras; as many random views as the
    stream takes.
    """

    def __init__(self, root: Path):
        self.folders = sorted(root.iterdir())

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        cameras = json.loads((self.folders[number] / "cameras.json").read_text())
        chosen = torch.randperm(len(cameras["c2w"]))[: TARGETS + 1].tolist()
        pixels = np.stack([np.asarray(Image.open(self.folders[number] / f"{view:03d}.png")) for view in chosen])
        c2w, K = (torch.tensor([cameras[name][view] for view in chosen]) for name in ("c2w", "K"))
        return {"images": torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, "c2w": c2w, "K": K}


def unpack(index: ShardIndex, root: Path) -> None:
    """Write the scenes of shards as loose files."""
    for number in range(len(index.samples)):
        record = index.read(number)
        (root / record.key).mkdir(parents=True)
        (root / record.key / "cameras.json").write_text(json.dumps(record.cameras_json()))
        for view, image in enumerate(record.images):
            (root / record.key / f"{view:03d}.png").write_bytes(image)


def loader_rates(workers: Iterable[int], batches: int, rounds: int) -> dict[int, dict[str, float]]:
    """Workers -> median scenes per second of shards and of loose files, taken in turn within each round, and processor
    seconds per scene: of the process that reads without workers, which other work on the machine does not disturb."""
    index = read_index(TRAIN)
    with tempfile.TemporaryDirectory() as folder:
        unpack(index, Path(folder) / "loose")
        loose = LooseScenes(Path(folder) / "loose")

        def from_shards(count: int) -> DataLoader:
            return DataLoader(SceneStream(index, BATCH, TARGETS, seed=0), batch_size=None, num_workers=count)

        def from_files(count: int) -> DataLoader:
            sampler = RandomSampler(loose, replacement=True, num_samples=1 << 30)
            return DataLoader(loose, BATCH, sampler=sampler, num_workers=count)

        found = {count: {"shards": [], "files": [], "shards_processor": [], "files_processor": []} for count in workers}
        for _ in range(rounds):
            for count, values in found.items():
                for name, loader in (("shards", from_shards(count)), ("files", from_files(count))):
                    wall, processor = rate(loader, batches)
                    values[name].append(1 / wall)
                    values[f"{name}_processor"].append(processor)
    return {count: {name: statistics.median(row) for name, row in values.items()} for count, values in found.items()}


def rate(loader: DataLoader, batches: int) -> tuple[float, float]:
    """Seconds and processor seconds of this process per scene, once what was fetched ahead has been used up."""
    iterator = iter(loader)
    for _ in range(2 * loader.num_workers + 1):
        next(iterator)
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(batches):
        next(iterator)
    return (time.perf_counter() - start) / (batches * BATCH), (time.process_time() - processor) / (batches * BATCH)
