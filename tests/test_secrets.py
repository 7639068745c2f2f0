"""Values of the environment, and passwords and signatures in addresses of data, are used and never written or
printed.
"""

import base64
import logging
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from training import CONFIG, last_checkpoint, refusal, vcgen
from vcgen import redaction
from vcgen.cli.export import export_checkpoint
from vcgen.cli.main import main
from vcgen.data.shards.remote import Cache
from vcgen.errors import UserError
from vcgen.redaction import hide, hide_word, identity

WORD, OTHER, PLACE = "pa55-4711-w0rd", "t0ken-0815-sig", "hidden-4712-place"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def server():
    """The bundled cars, for whoever knows a password; its address without http://."""

    class Guarded(SimpleHTTPRequestHandler):
        def do_GET(self):
            given = base64.b64decode(self.headers.get("Authorization", "Basic ").split(" ", 1)[1]).decode()
            if given.partition(":")[2] in (WORD, OTHER):
                super().do_GET()
            else:
                self.send_error(401)

        def log_message(self, *args):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(ROOT / "data" / "cars64")))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{served.server_port}"
    served.shutdown()


@pytest.fixture(autouse=True)
def no_secrets_left():
    yield
    redaction.begin()


def forms(secret: str) -> list[bytes]:
    return [
        form
        for text in (secret, f"me:{secret}")
        for form in (text.encode(), base64.b64encode(text.encode()).rstrip(b"=")[:-1])
    ]


def found_in(folder: Path, output: str, *secrets: str) -> list[str]:
    """Every file, and the output, that holds one of the secrets."""
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {"output": output.encode()}
    names = {str(path): str(path).encode() for path in folder.rglob("*")}
    return [
        name
        for name, data in [*texts.items(), *names.items()]
        if any(form in data for secret in secrets for form in forms(secret))
    ]


@pytest.mark.integration
def test_a_run_uses_secrets_and_keeps_none(server, tmp_path, capfd, monkeypatch, caplog):
    """An address in the environment, one on the command line, a number and a folder: searched for in every byte."""
    monkeypatch.setenv("CARS", f"http://me:{WORD}@{server}/train")
    monkeypatch.setenv("SCENES", "2")
    monkeypatch.setenv("PLACE", str(tmp_path / PLACE))
    text = CONFIG.replace("data/cars64/train", "'${oc.env:CARS}'").replace(
        "val_scenes: 2", "val_scenes: '${oc.decode:${oc.env:SCENES}}'"
    )
    (tmp_path / "tiny.yaml").write_text(text)
    cache = ["--data.val", f"http://me:{OTHER}@{server}/test", "--data.cache", "${oc.env:PLACE}/cache"]
    words = ["fit", "-c", str(tmp_path / "tiny.yaml"), *cache, "--trainer.default_root_dir", "${oc.env:PLACE}"]
    assert main([*words, "--trainer.max_steps=1"]) == 0
    run = tmp_path / PLACE
    # What was stored starts it again, with what the environment says then, and what was left out.
    monkeypatch.setenv("CARS", f"http://me:{OTHER}@{server}/train")
    assert main(["fit", "-c", str(run / "config.yaml"), *cache[:2], "--trainer.max_steps=2", "--ckpt_path=last"]) == 0
    output = "".join(capfd.readouterr()) + caplog.text
    export_checkpoint(run / "checkpoints" / "last.ckpt", run / "model")
    assert "max_steps=2" in output and found_in(run, output, WORD, OTHER) == []
    assert (
        not any(PLACE.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())
        and PLACE not in output
    )

    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored["trainer"]["default_root_dir"] == "${oc.env:PLACE}" and stored["data"]["init_args"]["batch_size"] == 2
    given = {name: stored["data"]["init_args"][name] for name in ("train", "val", "val_scenes")}
    assert given == {
        "train": "${oc.env:CARS}",
        "val": f"http://***@{server}/test",
        "val_scenes": "${oc.decode:${oc.env:SCENES}}",
    }
    assert last_checkpoint(run)["vcgen"]["data"] == "${oc.env:CARS}"
    assert len(list((run / "cache").glob("*/index.json"))) == 2  # another password, the same data


def test_a_value_that_does_not_fit_is_not_repeated(config, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("SECRET", WORD)
    options = {"data__batch_size": "${oc.env:SECRET}", "data__val_scenes": f"https://me:{OTHER}@host/"}
    line = refusal(capfd, vcgen("fit", config, tmp_path / "run", **options))
    assert "data" in line and found_in(tmp_path / "run", line, WORD, OTHER) == []
    line = refusal(capfd, vcgen("fit", config, tmp_path / "run", data__train="x/${oc.env:SECRET}/y"))
    assert "x/${oc.env:SECRET}/y: no index.json" in line


@pytest.mark.parametrize(
    "source",
    [
        f"https://me:{WORD}@127.0.0.1:9/cars",
        f"ftp://{WORD}@127.0.0.1:9/cars",
        f"http://127.0.0.1:9/{{}}?X-Amz-Signature={WORD}",
        f"nowhere://me:{WORD}@a/b",
        f"pipe:curl -sf -u me:{WORD} http://127.0.0.1:9/{{}}",
        f"pipe:false --password={WORD} {{}}",
        f"pipe:curl -sf -H 'Authorization: Bearer {WORD}' http://127.0.0.1:9/{{}}",
        f"pipe:TOKEN={WORD} false {{}}",
        f"pipe:curl -H 'Authorization: Bearer {WORD}' http://127.0.0.1:9/",
        f"pipe:false 'https://host/{{}}?sig={WORD}'",
    ],
)
def test_failed_downloads_do_not_repeat_them(tmp_path, source):
    with pytest.raises(UserError, match=r"cannot be fetched|needs {}") as error:
        Cache(tmp_path / "cache", 1 << 20).index(source)
    assert "***" in str(error.value) and found_in(tmp_path / "cache", str(error.value), WORD) == []


def test_what_a_checkpoint_needs_is_not_taken_from_the_environment(config, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("RAYS", "16")
    line = refusal(capfd, vcgen("fit", config, tmp_path / "run", model__rays_per_view="${oc.decode:${oc.env:RAYS}}"))
    assert "checkpoints could not be exported" in line and "rays_per_view" in line and not (tmp_path / "run").exists()


def test_a_printed_configuration_keeps_the_interpolations(config, capfd, monkeypatch):
    monkeypatch.setenv("SECRET", "abc")  # too short to be looked for in texts
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "-c",
                str(config),
                "--data.train",
                "${oc.env:SECRET}",
                "--data.val",
                "${oc.env:ABSENT,kept}",
                "--print_config",
            ]
        )
    printed = yaml.safe_load(capfd.readouterr().out)
    assert printed["data"]["init_args"]["train"] == "${oc.env:SECRET}" and printed["data"]["init_args"]["val"] == "kept"


def test_words_that_are_a_secret_by_chance_are_stored_as_they_were_written(config, capfd, monkeypatch):
    monkeypatch.setenv("SPLIT", "cars64")
    address = "https://me:train@host/x"
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "-c",
                str(config),
                "--data.val",
                "data/${oc.env:SPLIT}/test",
                "--data.cache",
                address,
                "--print_config",
            ]
        )
    printed = yaml.safe_load(capfd.readouterr().out)["data"]["init_args"]
    stored = {"train": "data/cars64/train", "val": "data/${oc.env:SPLIT}/test", "cache": "https:/***@host/x"}
    assert {name: printed[name] for name in stored} == stored


def test_logs_and_unexpected_errors_leave_them_out(caplog):
    redaction.begin(["--data.train", f"http://me:{WORD}@host/x"])
    logging.getLogger("somebody.elses").warning("cannot open %s with %s", f"http://me:{WORD}@host/x", WORD)
    assert WORD not in caplog.text and "http://***@host/x with ***" in caplog.text
    redaction.begin([f"--data.train=pipe:curl -H 'Authorization: Bearer {OTHER}' https://host/{{}}"])
    assert str(UserError(f"about {OTHER}")) == "about ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:word@host/a", "https://***@host/a"),
        ("see https://host/a?sig=x&b=1, then", "see https://host/a?***"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("https://me:a/b@c@host/a", "https://***@host/a"),
        ("simplecache::https://t0k@host/", "simplecache::https://***@host/"),
        ("error (http://host/a)", "error (http://host/a)"),
        ("model.method.token: sks", "model.method.token: sks"),
        ("a@b.c", "a@b.c"),
    ],
)
def test_addresses_are_shown_without_names_and_parameters(text, shown):
    assert hide(text).startswith(shown)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("pipe:cat /data/{}", "pipe:cat /data/{}"),
        ("pipe:aws s3 cp s3://bucket/{} -", "pipe:aws s3 cp s3://bucket/{} -"),
        ("pipe:ssh user@storage cat /data/{}", "pipe:ssh user@storage cat /data/{}"),
        ("--data.train=pipe:curl -u me:word a/{}", "--data.train=pipe:curl ***"),
        ("pipe:AWS_SECRET_ACCESS_KEY=word aws s3 cp s3://b/{} -", "pipe:aws ***"),
        ("pipe:sshpass -p word ssh host cat {}", "pipe:sshpass ***"),
        ("pipe:curl 'https://host/{}?token=word'", "pipe:curl ***"),
        ("pipe:curl --oauth2-bearer word https://host/{}", "pipe:curl ***"),
        ('pipe:curl -H "X-Api-Key: word" https://host/{}', "pipe:curl ***"),
        ("configs/cars64.yaml", "configs/cars64.yaml"),
    ],
)
def test_commands_with_secrets_are_shown_by_their_program(word, shown):
    assert hide_word(word) == shown and "word" not in hide_word(word)


def test_the_cache_knows_data_by_what_stays():
    assert identity("https://me:one@host/a/{}?v=1&X-Amz-Signature=2&X-Amz-Date=3") == identity(
        "https://me:two@host/a/{}?v=1&X-Amz-Signature=9"
    )
    assert identity("https://host/a/{}?v=1&sig=2") != identity("https://host/a/{}?v=2&sig=2")
    assert (
        identity("https://me:one@host/a") != identity("https://you:one@host/a")
        and identity("s3://bucket/a") == "s3://bucket/a"
    )
    assert (
        identity("pipe:curl -u me:one x/{}")
        == identity("pipe:curl -u me:two x/{}")
        != identity("pipe:curl -u me:two y/{}")
    )
    assert identity("pipe:cat {}") == "pipe:cat {}"
    with pytest.raises(UserError, match="passwords are not stored"):
        Cache(Path(os.devnull), 1).index("https://***@host/a")
