"""The files for containers name commands, options, ports and paths that exist, and keep the container confined.

Docker itself is not run.
"""

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.helpers import serving
from unitbox_tf import runs
from unitbox_tf.cli import parser
from unitbox_tf.serve import server
from unitbox_tf.web.hosts import Hosts

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/serving"
DOCKERFILE = FOLDER / "Dockerfile"
COMPOSE = FOLDER / "compose.yaml"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def instructions():
    """The instructions of the Dockerfile, each with its arguments, in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.strip().split(maxsplit=1)) for line in lines if line.strip()]


def last(name):
    return [argument for instruction, argument in instructions() if instruction == name][-1]


@pytest.fixture(scope="module")
def service():
    [service] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"].values()
    return service


def options_of(command):
    """The options of `unitbox serve` in a command; a wrong one fails."""
    return parser.parse(["serve", *command])


def checked_url(command):
    """The address that a check of health opens; the code is compiled."""
    program, option, code = command
    assert (program, option) == ("python", "-c")
    compile(code, "health", "exec")
    return re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)'", code).groups()


def test_the_image_runs_the_command():
    assert json.loads(last("ENTRYPOINT")) == ["unitbox", "serve"]
    assert "unitbox = unitbox_tf.cli:main" in SETUP["options.entry_points"]["console_scripts"]
    options = options_of(json.loads(last("CMD")))
    assert str(options.port) == last("EXPOSE")
    assert options.host == "0.0.0.0"
    assert Path(options.model).parent == Path(last("VOLUME"))
    assert runs.find(options.model).suffix == ".onnx"
    assert server.checked_name(options.name) == "faces"


def test_the_image_is_built_from_what_there_is():
    bases = [argument.split()[0] for name, argument in instructions() if name == "FROM"]
    assert len(set(bases)) == 1
    version = re.fullmatch(r"python:(3\.\d+)-slim", bases[0])[1]
    assert f"Programming Language :: Python :: {version}" in SETUP["metadata"]["classifiers"]
    installs = [argument for name, argument in instructions() if "pip install" in argument]
    [extras] = [re.search(r"unitbox_tf\[([\w,]+)\]", each)[1].split(",") for each in installs]
    assert set(extras) <= set(SETUP["options.extras_require"])
    assert {"serve", "onnx"} <= set(extras)
    for source in re.findall(r"type=bind,source=([\w.]+)", " ".join(installs)):
        assert (ROOT / source).is_file()
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text("utf-8")
    kept = re.findall(r"^!(.+)$", ignored, re.MULTILINE)
    assert all((ROOT / path).exists() for path in kept)
    needed = ["unitbox_tf", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    needed += [f"saved_models/{name}" for name in ("faces", "faces_light")]
    assert set(needed) <= set(kept)


def test_nobody_in_the_container_is_root(service):
    user = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", last("USER"))
    assert service["user"] == user[0]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))


def test_the_checks_of_health_are_answered(service, counting):
    in_image = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    for command, options in (
        (in_image, options_of(json.loads(last("CMD")))),
        (service["healthcheck"]["test"][1:], options_of(service["command"])),
    ):
        port, path = checked_url(command)
        assert port == str(options.port)
        hosts = Hosts.of(options.host, options.public_host)
        assert hosts.know(f"127.0.0.1:{port}")
        with serving.client(counting.exported()) as client:
            assert client.ask("GET", path)[0] == 200
    assert service["healthcheck"]["test"][0] == "CMD"


def test_the_service_is_confined(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    [place] = service["tmpfs"]
    path, _, flags = place.partition(":")
    assert path == last("WORKDIR") == "/tmp"
    assert {"noexec", "nosuid", "nodev"} <= set(flags.split(","))
    assert f"HOME={path}" in shlex.split(last("ENV"))
    assert {"pids_limit", "mem_limit", "cpus"} <= set(service)


def test_the_service_fits_the_image_and_the_command(service):
    options = options_of(service["command"])
    [(address, outside, inside)] = [port.split(":") for port in service["ports"]]
    assert address == "127.0.0.1"
    assert inside == outside == str(options.port)
    [name] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    assert options.public_host == [name]  # by which other containers call it
    context = (FOLDER / service["build"]["context"]).resolve()
    assert context == ROOT
    assert context / service["build"]["dockerfile"] == DOCKERFILE
    assert int(service["stop_grace_period"].removesuffix("s")) > 2 * server.ENDING_SECONDS + 5
    assert service["volumes"][0].split(":")[1] == last("VOLUME")
    assert Path(options.model).parent == Path(last("VOLUME"))


def test_the_example_of_triton_describes_the_onnx_file():
    """The inputs and outputs of `config.pbtxt` in docs/serving.md are those of exported files."""
    onnx = pytest.importorskip("unitbox_tf.formats.onnx")
    page = (ROOT / "docs/serving.md").read_text("utf-8")
    config = re.search(r"```text\n(name: \"faces\".*?)```", page, re.DOTALL)[1]
    types = re.findall(r'name: "(\w+)", data_type: (TYPE_\w+), dims: \[([-\d, ]+)\]', config)
    inputs = types[: config[: config.index("output [")].count("data_type")]
    assert [(name, kind) for name, kind, _ in inputs] == [("images", "TYPE_UINT8")]
    assert {name for name, *_ in types[len(inputs) :]} == onnx.OUTPUTS
