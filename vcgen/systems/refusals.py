"""Make one line of the long messages in which libraries refuse."""

import re

#: Lines of jsonargparse's messages that repeat the input or describe Python types instead of the mistake.
NOISE = re.compile(r"Does not validate against|Subtypes:|Errors:|- Expected a <class 'NoneType'>|Given value type:|Given value:")
CLASS = re.compile(r"Problem with given class_path '(?:\w+\.)*(\w+)':")
KEY = re.compile(r'Parser key "([^"]+)":')


def parse_refusal(message: str) -> str:
    """jsonargparse's explanation, indented and over many lines -> "model.layers: NerfDiff: expected int. Got value: many"."""
    lines = [line.strip() for line in message.splitlines()]
    lines = [line.removeprefix("- ") for line in lines if line and not NOISE.match(line)]
    keys = [key for line in lines for key in KEY.findall(line)]
    reasons = [CLASS.sub(r"\1:", KEY.sub("", line).strip()) for line in lines]
    reasons = [re.sub(r"Expected an? (?:<class '(\w+)'>|typing\.(\w+))", r"expected \1\2", reason) for reason in reasons]
    place = ".".join(keys)
    return " ".join([f"{place}:", *filter(None, reasons)] if place else filter(None, reasons))


def worker_refusal(message: str) -> str:
    """An error that a loader process raised carries its traceback; the last line is what was raised."""
    last = message.strip().splitlines()[-1] if message.strip() else message
    return re.sub(r"^(?:\w+\.)*UserError: ", "", last)


def process_refusal(message: str) -> str | None:
    """The line for a run that has lost one of its loader processes; None for any other message."""
    if found := re.search(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal: (\w+)|exited unexpectedly)", message):
        how = f"was killed ({found[1]})" if found[1] else "ended unexpectedly"
        return f"a loader process {how}, most often for lack of memory: lower data.num_workers or ask for more; go on with --ckpt_path last"
    return None
