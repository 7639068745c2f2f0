"""What Lightning's Trainer is told, checked before anything is built: it takes values that cannot work, and fails on
them much later.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from vcgen.errors import UserError

STRATEGIES = (
    "auto",
    "ddp",
    "ddp_find_unused_parameters_true",
    "ddp_find_unused_parameters_false",
    "single_device",
    "sharded",
)
#: The same as classes of Lightning. Those of other packages are the user's own affair.
STRATEGY_CLASSES = ("DDPStrategy", "SingleDeviceStrategy")
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
ENDLESS = "the data has no end"

Check = Callable[[Any], bool]


def whole(least: int, *others: Any) -> Check:
    """Accepts whole numbers from ``least`` on, and ``others``."""
    return lambda value: value in others or (isinstance(value, int) and not isinstance(value, bool) and value >= least)


def number(low: float, high: float = math.inf) -> Check:
    """Accepts numbers in [low, high]."""
    return lambda value: isinstance(value, (int, float)) and low <= value <= high


def part(value: Any) -> bool:
    """Accepts a number of batches, or a fraction of them."""
    return whole(0)(value) or (isinstance(value, float) and 0 <= value <= 1)


def one_of(names: tuple[str, ...]) -> Check:
    """Accepts one of the names, in any case, and an object with a class of its own."""
    return lambda value: isinstance(value, Mapping) or str(value).lower() in names


#: Option -> (what is accepted, in words). null is always accepted: it is Lightning's default.
OPTIONS: dict[str, tuple[Check, str]] = {
    "max_steps": (whole(1, -1), "at least 1, or -1 for no limit"),
    "max_epochs": (whole(1, -1), "at least 1, or -1 for no limit"),
    "min_steps": (whole(0), "at least 0"),
    "min_epochs": (whole(0), "at least 0"),
    "max_time": (
        lambda value: not isinstance(value, str) or bool(re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value)),
        "DAYS:HOURS:MINUTES:SECONDS, as 00:01:30:00",
    ),
    "accumulate_grad_batches": (whole(1), "at least 1"),
    "log_every_n_steps": (whole(1), "at least 1"),
    "check_val_every_n_epoch": (whole(1), "at least 1, or null"),
    "val_check_interval": (
        lambda value: isinstance(value, (str, Mapping)) or whole(1)(value) or number(1e-9, 1)(value),
        "at least 1",
    ),
    "num_sanity_val_steps": (whole(-1), "at least 0, or -1 for all"),
    "reload_dataloaders_every_n_epochs": (whole(0), "at least 0"),
    "limit_train_batches": (lambda value: value != 0 and part(value), "a number of batches, at least 1"),
    "overfit_batches": (part, "a number of batches, at least 0"),
    "limit_val_batches": (part, "a whole number of batches, or a fraction in [0, 1]"),
    "fast_dev_run": (
        lambda value: isinstance(value, bool) or whole(0)(value),
        "true, false, or a whole number of batches",
    ),
    "gradient_clip_val": (number(0), "at least 0"),
    "gradient_clip_algorithm": (one_of(("norm", "value")), "norm or value"),
    "num_nodes": (whole(1), "at least 1"),
    "devices": (
        lambda value: (
            (isinstance(value, (list, tuple)) and len(value) > 0) or not re.fullmatch(r"0|-(?!1$).*|\[\]", str(value))
        ),
        "at least 1, auto, or a list of device numbers",
    ),
    "use_distributed_sampler": (
        lambda value: value is False,
        "false: the data part deals out scenes to processes by itself",
    ),
    "accelerator": (one_of(ACCELERATORS), " or ".join(ACCELERATORS)),
    "precision": (one_of(PRECISIONS), "32-true, bf16-mixed or 16-mixed: weights, cameras and rays stay in float32"),
}


def check_trainer(options: Mapping[str, Any], endless: bool) -> None:
    """Raises UserError for the first option of the Trainer that is out of its range, or means nothing with the others.

    options: the ``trainer`` part of a configuration. endless: whether the training data has no end, as all of vcgen's.
    """
    for name, (accepts, words) in OPTIONS.items():
        value = options.get(name)
        if value is not None and not accepts(value):
            raise UserError(f"trainer.{name} must be {words}; not {value}")
    check_strategy(options.get("strategy"))
    if options.get("strategy") == "single_device" and options.get("num_nodes", 1) > 1:
        raise UserError(
            f"trainer.strategy single_device knows no others of {options['num_nodes']} nodes; give"
            " --trainer.strategy ddp"
        )
    plugins = options.get("plugins") or []
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        name = str(plugin.get("class_path") if isinstance(plugin, Mapping) else plugin).rpartition(".")[2]
        if "Precision" in name and name != "MixedPrecision":
            raise UserError(
                f"trainer.plugins: vcgen cannot train with {name}; give --trainer.precision {OPTIONS['precision'][1]}"
            )
    if options.get("min_steps") and 0 < options["max_steps"] < options["min_steps"]:
        raise UserError(
            f"trainer.min_steps {options['min_steps']} is more than trainer.max_steps {options['max_steps']};"
            " change one"
        )
    if options.get("barebones") and options.get("logger") not in (None, False):
        raise UserError("trainer.barebones logs nothing: leave trainer.logger out, or barebones")
    if endless:
        check_epochs(options)


def check_seed(seed: Any) -> None:
    """Raises UserError for a seed that NumPy does not take; true draws one."""
    if seed is not None and not isinstance(seed, bool) and not 0 <= seed < 1 << 32:
        raise UserError(f"seed_everything must lie in [0, {(1 << 32) - 1}]; not {seed}")


def check_strategy(strategy: Any) -> None:
    """Only strategies that leave the start of processes to `vcgen fit` or the cluster: forks and spawned copies of a
    process that has already built model and callbacks fail, or end in an error after the last step."""
    advice = "give --trainer.strategy ddp, or sharded for U-Nets that are too large for one GPU"
    if isinstance(strategy, Mapping):
        module, _, name = str(strategy.get("class_path")).rpartition(".")
        method = (strategy.get("init_args") or {}).get("start_method") or "popen"
        if module.startswith(("lightning.", "pytorch_lightning.")) and (
            name not in STRATEGY_CLASSES or method != "popen"
        ):
            shown = name if method == "popen" else f"{name} with start_method {method}"
            raise UserError(f"trainer.strategy: vcgen cannot train with {shown}; {advice}")
    elif strategy is not None and str(strategy).lower() not in STRATEGIES:
        raise UserError(f"trainer.strategy: vcgen cannot train with {strategy}; {advice}")


def check_epochs(options: Mapping[str, Any]) -> None:
    """Epochs are what ``limit_train_batches`` makes of an endless stream."""
    limit, again = options.get("limit_train_batches"), options.get("overfit_batches")
    for name, value, whole_data in (("limit_train_batches", limit, 1), ("overfit_batches", again, 0)):
        if isinstance(value, float) and value != whole_data:
            raise UserError(f"trainer.{name} must be a whole number of batches: {ENDLESS}; not {value}")
    limited = again or (isinstance(limit, int) and limit) or 0
    for name in ("max_epochs", "min_epochs"):
        if not limited and (options.get(name) or -1) > 0 and not options.get("fast_dev_run"):
            advice = "or with trainer.limit_train_batches the number of batches of an epoch"
            raise UserError(f"trainer.{name} counts nothing: {ENDLESS}; give trainer.max_steps or max_time, {advice}")
    interval, every = options.get("val_check_interval"), options.get("check_val_every_n_epoch")
    if isinstance(interval, float) and (every is None or (interval != 1 and not limited)):
        raise UserError(f"trainer.val_check_interval must be a whole number of batches: {ENDLESS}; not {interval}")
    if isinstance(interval, int) and limited and every is not None and interval > limited:
        found = f"trainer.val_check_interval {interval} is more than the {limited} batches of an epoch"
        raise UserError(
            f"{found}; lower it, or set trainer.check_val_every_n_epoch to null to count batches of all epochs"
        )
