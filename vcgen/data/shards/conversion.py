"""Scenes become records, in this process or in others, in the order in which they are listed."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from vcgen.data.formats.remarks import collect_remarks
from vcgen.data.formats.scene import SceneFolder, Settings
from vcgen.data.shards.record import SceneRecord
from vcgen.errors import UserError
from vcgen.terminal import printable

#: Of a format: its kinds of Settings and SceneFolder are its own.
ListScenes = Callable[[Path, Any], Sequence[SceneFolder]]
ReadScene = Callable[[Any, Any], SceneRecord]


def convert(
    scenes: list[SceneFolder], read_scene: ReadScene, settings: Settings, workers: int
) -> Iterator[tuple[SceneRecord | str, list[str]]]:
    """:func:`convert_one` of each scene, in order."""
    if workers == 1:
        yield from (convert_one(read_scene, scene, settings) for scene in scenes)
        return
    pending: deque[Future[tuple[SceneRecord | str, list[str]]]] = deque()
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=follow_parent
    ) as pool:
        try:
            for scene in scenes:
                pending.append(pool.submit(convert_one, read_scene, scene, settings))
                # A bounded queue: results wait in memory until their turn to be written.
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died (out of memory?); run the command again to continue, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def follow_parent() -> None:
    """Make a worker leave Ctrl-C to its parent and end when the parent does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def convert_one(read_scene: ReadScene, scene: SceneFolder, settings: Settings) -> tuple[SceneRecord | str, list[str]]:
    """One scene's validated record, or the reason why it is broken; and what was remarked."""
    with collect_remarks() as remarks:
        try:
            result: SceneRecord | str = read_scene(scene, settings).validate()
        except UserError as error:
            result = printable(str(error))
        except OSError as error:
            result = printable(f"{error.filename or scene.folder}: {error.strerror or error}")
    return result, remarks
