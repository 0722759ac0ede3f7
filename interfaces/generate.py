"""Generates ROS 2 message packages into the running virtual environment: rosidl's generators and g++, no CMake.

    .venv/bin/python interfaces/generate.py

makes every package of this folder (``PACKAGE/package.xml`` and ``PACKAGE/msg/*.msg``) importable, usable by rclpy
over Fast DDS, and listed in the ament index. For machines without ROS only: a package that is there already and was
not made by this program is left alone. Everything is built aside and copied in at the end, so a failed build leaves
the environment as it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

HERE = Path(__file__).resolve().parent
PREFIX = Path(sys.prefix)
MARKER = "made_by_generate.txt"
TYPE_SUPPORTS = ("rosidl_typesupport_c", "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")


class GenerateError(Exception):
    """Why a package cannot be generated, in one sentence with the remedy."""


@dataclass(frozen=True)
class Package:
    """One message package: its sources, the packages it uses, and where it is built."""

    name: str
    folder: Path
    depends: tuple[str, ...]
    messages: tuple[Path, ...]
    build: Path

    @property
    def staged(self) -> Path:
        """Folder laid out like the environment's prefix; copied over it when everything is built."""
        return self.build / "staged"

    @property
    def python(self) -> Path:
        return self.staged / Path(sysconfig.get_paths()["purelib"]).relative_to(PREFIX) / self.name

    @property
    def idl_tuples(self) -> list[str]:
        """rosidl's way to name an interface file: ``root:path below root``."""
        return [f"{self.build / 'idl' / self.name}:msg/{message.stem}.idl" for message in self.messages]


def read_package(folder: Path, build_root: Path) -> Package:
    """Reads ``package.xml`` and the list of messages of `folder`.

    Raises:
        GenerateError: one of them is missing, or a package that it depends on is not installed.
    """
    manifest = folder / "package.xml"
    messages = tuple(sorted(folder.glob("msg/*.msg")))
    if not manifest.is_file() or not messages:
        raise GenerateError(f"{folder} is no message package: it needs package.xml and msg/*.msg")
    depends = tuple(tag.text or "" for tag in ElementTree.parse(manifest).iter("depend"))
    for depend in depends:
        if not (PREFIX / "share" / depend / "msg").is_dir():
            raise GenerateError(f"{folder.name} needs {depend}, which is not in {PREFIX}: install requirements.txt there")
    return Package(folder.name, folder, depends, messages, build_root / folder.name)


def made_elsewhere(name: str) -> str | None:
    """Where package `name` is importable from, if something other than this program put it there."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # origin is None for a mere folder, such as the one beside this file
        return None
    location = Path(spec.origin).parent
    return None if (location / MARKER).is_file() else str(location)


# --- source code: .msg -> .idl -> C, C++ and Python -------------------------------------------------------------------


def arguments_file(package: Package, step: str, template_package: str, **extra: object) -> str:
    """Writes the JSON file of arguments that every rosidl generator reads; returns its path."""
    output = package.build / step / package.name
    output.mkdir(parents=True, exist_ok=True)
    dependencies = [
        f"{depend}:{idl}" for depend in package.depends for idl in sorted((PREFIX / "share" / depend / "msg").glob("*.idl"))
    ]
    arguments = {
        "package_name": package.name,
        "output_dir": str(output),
        "template_dir": str(PREFIX / "share" / template_package / "resource"),
        "idl_tuples": package.idl_tuples,
        "ros_interface_files": [str(message) for message in package.messages],
        "ros_interface_dependencies": dependencies,
        "target_dependencies": [],
    }
    path = package.build / f"{step}.json"
    path.write_text(json.dumps(arguments | extra))
    return str(path)


def write_sources(package: Package) -> None:
    """Runs the rosidl generators, each into a folder of its own below ``package.build``."""
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c import generate_c
    from rosidl_generator_py.generate_py_impl import generate_py
    from rosidl_generator_type_description import generate_type_hash
    from rosidl_typesupport_c import generate_c as generate_typesupport_c
    from rosidl_typesupport_fastrtps_c import generate_typesupport_fastrtps_c
    from rosidl_typesupport_introspection_c import generate_c as generate_introspection_c

    # .msg -> .idl, then the type description, which carries the hash that identifies the type on the wire
    for message in package.messages:
        relative = message.relative_to(package.folder)
        convert_msg_to_idl(package.folder, package.name, relative, package.build / "idl" / package.name / "msg")
    include = [f"{depend}:{PREFIX / 'share' / depend}" for depend in package.depends]
    generate_type_hash(arguments_file(package, "description", "rosidl_generator_type_description", include_paths=include))
    descriptions = [
        f"msg/{message.stem}.idl:{package.build / 'description' / package.name / 'msg' / message.stem}.json"
        for message in package.messages
    ]

    # C structs, their type supports (Fast DDS describes types to others through introspection), and the Python classes with their conversion to the structs
    generate_c(arguments_file(package, "c", "rosidl_generator_c", type_description_tuples=descriptions))
    generate_typesupport_fastrtps_c(arguments_file(package, "fastrtps", "rosidl_typesupport_fastrtps_c"))
    generate_introspection_c(arguments_file(package, "introspection", "rosidl_typesupport_introspection_c"))
    generate_typesupport_c(arguments_file(package, "typesupport", "rosidl_typesupport_c"), list(TYPE_SUPPORTS[1:]))
    generate_py(arguments_file(package, "py", "rosidl_generator_py"), [TYPE_SUPPORTS[0]])

    # the headers that CMake would configure
    for step, generator in zip(("c", "fastrtps", "introspection"), ("rosidl_generator_c", *TYPE_SUPPORTS[1:]), strict=True):
        header = f"{generator}__visibility_control.h"
        text = (PREFIX / "share" / generator / "resource" / f"{header}.in").read_text()
        text = text.replace("@PROJECT_NAME_UPPER@", package.name.upper()).replace("@PROJECT_NAME@", package.name)
        (package.build / step / package.name / "msg" / header).write_text(text)


# --- libraries --------------------------------------------------------------------------------------------------------


def run_compiler(command: Sequence[str], output: Path) -> None:
    """Runs `command`, which makes `output`; what it prints appears in the error only."""
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerateError(f"{command[0]} could not make {output}:\n{done.stderr}")


def include_flags(package: Package) -> list[str]:
    folders = [package.build / step for step in ("c", "fastrtps", "introspection", "py")]
    folders += [HERE / "include", PREFIX / "include", *sorted(p for p in (PREFIX / "include").iterdir() if p.is_dir())]
    return [f"-I{folder}" for folder in folders]


def link(package: Package, output: Path, sources: Sequence[Path], libraries: Sequence[str], rpath: str) -> None:
    """Compiles `sources` (C or C++) side by side and links them into the shared library `output`."""
    flags = ["-O2", "-fPIC", f'-DROS_PACKAGE_NAME="{package.name}"', *include_flags(package)]

    def compile_one(source: Path) -> str:
        compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc", "-std=gnu11", "-Werror=implicit"]
        output = source.with_suffix(".o")
        run_compiler([*compiler, *flags, "-c", str(source)], output)
        return str(output)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    output.parent.mkdir(parents=True, exist_ok=True)
    search = [flag for lib in (package.staged / "lib", PREFIX / "lib") for flag in (f"-L{lib}", f"-Wl,-rpath-link,{lib}")]
    named = [f"-l{library}" for library in libraries]
    run_compiler(["g++", "-shared", *objects, *search, f"-Wl,-rpath,{rpath}", *named], output)


def build_libraries(package: Package) -> None:
    """Builds the four libraries and the Python extension module that make up a message package."""
    name, lib = package.name, package.staged / "lib"

    def of_dependencies(kind: str) -> list[str]:
        return [f"{d}__{kind}" for d in package.depends if (PREFIX / "lib" / f"lib{d}__{kind}.so").is_file()]

    def library(kind: str, sources: Sequence[Path], libraries: Sequence[str]) -> None:
        own = [f"{name}__{k}" for k in ("rosidl_generator_c", *TYPE_SUPPORTS) if (lib / f"lib{name}__{k}.so").is_file()]
        output = lib / f"lib{name}__{kind}.so"
        link(package, output, sources, [*own, *libraries, *of_dependencies(kind), "rosidl_runtime_c", "rcutils"], "$ORIGIN")

    library("rosidl_generator_c", sorted((package.build / "c").rglob("*.c")), [])
    fastrtps = ["rosidl_typesupport_fastrtps_cpp", "rosidl_typesupport_fastrtps_c", "rmw", "fastcdr"]
    fastrtps += of_dependencies("rosidl_generator_c")
    library("rosidl_typesupport_fastrtps_c", sorted((package.build / "fastrtps").rglob("*.cpp")), fastrtps)
    introspection = sorted((package.build / "introspection").rglob("*.c"))
    library("rosidl_typesupport_introspection_c", introspection, ["rosidl_typesupport_introspection_c"])
    library("rosidl_typesupport_c", sorted((package.build / "typesupport").rglob("*.cpp")), ["rosidl_typesupport_c"])
    python = package.build / "py" / name
    library("rosidl_generator_py", sorted(python.glob("msg/*_s.c")), [])

    # the Python package: its generated modules beside the extension that rclpy asks for the type support
    ignored = shutil.ignore_patterns("*.c", "*.o", "*.json")
    shutil.copytree(python, package.python, ignore=ignored, dirs_exist_ok=True)
    entry_point = python / f"_{name}_s.ep.{TYPE_SUPPORTS[0]}.c"
    libraries = [f"{name}__{kind}" for kind in ("rosidl_generator_py", "rosidl_typesupport_c", "rosidl_generator_c")]
    extension = package.python / f"{name}_s__{TYPE_SUPPORTS[0]}.so"
    link(package, extension, [entry_point], [*libraries, "rosidl_runtime_c"], "$ORIGIN/../../..")


# --- installation -----------------------------------------------------------------------------------------------------


def stage_share(package: Package) -> None:
    """Stages the definitions, the manifest and the ament index entries."""
    share = package.staged / "share" / package.name
    (share / "msg").mkdir(parents=True, exist_ok=True)
    generated = [*(package.build / "idl").rglob("*.idl"), *(package.build / "description").rglob("*.json")]
    for path in (*package.messages, *generated):
        shutil.copy(path, share / "msg")
    shutil.copy(package.folder / "package.xml", share)
    index = package.staged / "share/ament_index/resource_index"
    (index / "packages").mkdir(parents=True, exist_ok=True)
    (index / "rosidl_interfaces").mkdir(exist_ok=True)
    (index / "packages" / package.name).touch()
    names = "".join(f"msg/{message.stem}.msg\n" for message in package.messages)
    (index / "rosidl_interfaces" / package.name).write_text(names)
    (package.python / MARKER).write_text("Made by interfaces/generate.py of sbnet_perception; it may replace this.\n")


def build(package: Package) -> None:
    """Generates, compiles and stages `package`, then copies it into the environment."""
    shutil.rmtree(package.build, ignore_errors=True)
    with redirect_stdout(StringIO()):
        write_sources(package)
    build_libraries(package)
    stage_share(package)
    shutil.rmtree(PREFIX / package.python.relative_to(package.staged), ignore_errors=True)
    shutil.copytree(package.staged, PREFIX, dirs_exist_ok=True)


def timed(label: str, action: Callable[[], None]) -> None:
    """Runs `action` with a line that says what is being done and how long it took."""
    print(f"{label} ...", end="", flush=True)
    start = time.monotonic()
    action()
    print(f" {time.monotonic() - start:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--build-dir", type=Path, default=HERE.parent / "build" / "interfaces", help="folder for scratch files")
    options = parser.parse_args()
    try:
        if sys.prefix == sys.base_prefix:
            raise GenerateError("this is no virtual environment: run .venv/bin/python interfaces/generate.py")
        if importlib.util.find_spec("rosidl_adapter") is None:
            raise GenerateError(f"rosidl's generators are not in {PREFIX}: install requirements.txt there first")
        for folder in sorted(path.parent for path in HERE.glob("*/package.xml")):
            elsewhere = made_elsewhere(folder.name)
            if elsewhere:
                print(f"{folder.name}: already at {elsewhere}, left alone")
                continue
            package = read_package(folder, options.build_dir.resolve())
            timed(f"{package.name}: {len(package.messages)} message(s)", lambda package=package: build(package))  # type: ignore[misc]
    except GenerateError as error:
        print(f"\ngenerate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
