"""Generates ROS 2 message packages into the running virtual environment with rosidl's generators and g++.

    .venv/bin/python interfaces/generate.py

makes every package of this folder (``PACKAGE/package.xml`` and ``PACKAGE/msg/*.msg``) importable, usable
by rclpy over Fast DDS, and listed in the ament index; CMake and Python's headers are not needed. For
machines without ROS only: a package that is there already and was not made by this program is left alone.
Everything is built aside and copied in at the end, so a failed build leaves the environment as it was.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

HERE = Path(__file__).resolve().parent
PREFIX = Path(sys.prefix)
MARKER = "made_by_generate.txt"
DISPATCH = "rosidl_typesupport_c"
FASTRTPS = "rosidl_typesupport_fastrtps_c"
INTROSPECTION = "rosidl_typesupport_introspection_c"  # Fast DDS describes types to others through it


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
            remedy = "install requirements.txt there"
            raise GenerateError(f"{folder.name} needs {depend}, which is not in {PREFIX}: {remedy}")
    return Package(folder.name, folder, depends, messages, build_root / folder.name)


def made_elsewhere(name: str) -> str | None:
    """Where package `name` is importable from, if something other than this program put it there."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # None: a mere folder, such as the one beside this file
        return None
    location = Path(spec.origin).parent
    return None if (location / MARKER).is_file() else str(location)


# --- source code: .msg -> .idl -> C, C++ and Python ---


def arguments_file(package: Package, step: str, template_package: str, **extra: object) -> str:
    """Writes the JSON file of arguments that every rosidl generator reads; returns its path."""
    output = package.build / step / package.name
    output.mkdir(parents=True, exist_ok=True)
    dependencies = [
        f"{depend}:{idl}"
        for depend in package.depends
        for idl in sorted((PREFIX / "share" / depend / "msg").glob("*.idl"))
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
        idl = package.build / "idl" / package.name / "msg"
        convert_msg_to_idl(package.folder, package.name, relative, idl)
    include = [f"{depend}:{PREFIX / 'share' / depend}" for depend in package.depends]
    hashes = arguments_file(
        package, "description", "rosidl_generator_type_description", include_paths=include
    )
    generate_type_hash(hashes)
    described = package.build / "description" / package.name / "msg"
    descriptions = [f"msg/{message.stem}.idl:{described / message.stem}.json" for message in package.messages]

    # C structs, their type supports, and the Python classes with their conversion to the structs
    generate_c(arguments_file(package, "c", "rosidl_generator_c", type_description_tuples=descriptions))
    generate_typesupport_fastrtps_c(arguments_file(package, "fastrtps", FASTRTPS))
    generate_introspection_c(arguments_file(package, "introspection", INTROSPECTION))
    generate_typesupport_c(arguments_file(package, "typesupport", DISPATCH), [FASTRTPS, INTROSPECTION])
    generate_py(arguments_file(package, "py", "rosidl_generator_py"), [DISPATCH])

    # the headers that CMake would configure
    generators = {"c": "rosidl_generator_c", "fastrtps": FASTRTPS, "introspection": INTROSPECTION}
    for step, generator in generators.items():
        header = f"{generator}__visibility_control.h"
        text = (PREFIX / "share" / generator / "resource" / f"{header}.in").read_text()
        text = text.replace("@PROJECT_NAME_UPPER@", package.name.upper())
        text = text.replace("@PROJECT_NAME@", package.name)
        (package.build / step / package.name / "msg" / header).write_text(text)


# --- libraries ---


def run_compiler(command: Sequence[str], output: Path) -> None:
    """Runs `command`, which makes `output`; what it prints appears in the error only."""
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerateError(f"{command[0]} could not make {output}:\n{done.stderr}")


def include_flags(package: Package) -> list[str]:
    folders = [package.build / step for step in ("c", "fastrtps", "introspection", "py")]
    folders += [HERE / "include", PREFIX / "include"]
    folders += sorted(path for path in (PREFIX / "include").iterdir() if path.is_dir())
    return [f"-I{folder}" for folder in folders]


def link(
    package: Package, output: Path, sources: Sequence[Path], libraries: Sequence[str], rpath: str
) -> None:
    """Compiles `sources` (C or C++) side by side and links them into the shared library `output`."""
    flags = ["-O2", "-DNDEBUG", "-fPIC", f'-DROS_PACKAGE_NAME="{package.name}"', *include_flags(package)]

    def compile_one(source: Path) -> str:
        is_cpp = source.suffix == ".cpp"
        compiler = ["g++", "-std=c++17"] if is_cpp else ["gcc", "-std=gnu11", "-Werror=implicit"]
        output = source.with_suffix(".o")
        run_compiler([*compiler, *flags, "-c", str(source)], output)
        return str(output)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    output.parent.mkdir(parents=True, exist_ok=True)
    folders = (package.staged / "lib", PREFIX / "lib")
    search = [flag for folder in folders for flag in (f"-L{folder}", f"-Wl,-rpath-link,{folder}")]
    search.append(f"-Wl,-rpath,{rpath}")
    run_compiler(["g++", "-shared", *objects, *search, *(f"-l{library}" for library in libraries)], output)


def build_libraries(package: Package) -> None:
    """Builds the four libraries and the Python extension module that make up a message package."""
    name, lib = package.name, package.staged / "lib"

    def of_dependencies(kind: str) -> list[str]:
        return [f"{d}__{kind}" for d in package.depends if (PREFIX / "lib" / f"lib{d}__{kind}.so").is_file()]

    def library(kind: str, sources: Sequence[Path], libraries: Sequence[str]) -> None:
        built = ("rosidl_generator_c", FASTRTPS, INTROSPECTION, DISPATCH)
        own = [f"{name}__{k}" for k in built if (lib / f"lib{name}__{k}.so").is_file()]
        needed = [*own, *libraries, *of_dependencies(kind), "rosidl_runtime_c", "rcutils"]
        link(package, lib / f"lib{name}__{kind}.so", sources, needed, "$ORIGIN")

    def generated(step: str, pattern: str) -> list[Path]:
        return sorted((package.build / step).rglob(pattern))

    library("rosidl_generator_c", generated("c", "*.c"), [])
    cpp_support = FASTRTPS.removesuffix("c") + "cpp"
    structs = of_dependencies("rosidl_generator_c")
    library(FASTRTPS, generated("fastrtps", "*.cpp"), [FASTRTPS, cpp_support, "rmw", "fastcdr", *structs])
    library(INTROSPECTION, generated("introspection", "*.c"), [INTROSPECTION])
    library(DISPATCH, generated("typesupport", "*.cpp"), [DISPATCH])
    python = package.build / "py" / name
    library("rosidl_generator_py", generated("py", "*_s.c"), [])

    # the Python package: its generated modules beside the extension that rclpy asks for the type support
    ignored = shutil.ignore_patterns("*.c", "*.o", "*.json")
    shutil.copytree(python, package.python, ignore=ignored, dirs_exist_ok=True)
    entry_point = python / f"_{name}_s.ep.{DISPATCH}.c"
    libraries = [f"{name}__{kind}" for kind in ("rosidl_generator_py", DISPATCH, "rosidl_generator_c")]
    extension = package.python / f"{name}_s__{DISPATCH}.so"
    link(package, extension, [entry_point], [*libraries, "rosidl_runtime_c"], "$ORIGIN/../../..")


# --- installation ---


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
    note = "Made by interfaces/generate.py of sbnet_perception, which may replace it.\n"
    (package.python / MARKER).write_text(note)


def replace(source: str, target: str) -> None:
    """Puts a copy of `source` in the place of `target`; a process that uses the old one keeps it."""
    shutil.copy2(source, f"{target}.new")
    os.replace(f"{target}.new", target)


def build(package: Package) -> None:
    """Generates, compiles and stages `package`, then copies it into the environment."""
    shutil.rmtree(package.build, ignore_errors=True)
    with redirect_stdout(StringIO()):
        write_sources(package)
    build_libraries(package)
    stage_share(package)
    shutil.copytree(package.staged, PREFIX, dirs_exist_ok=True, copy_function=replace)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    scratch = HERE.parent / "build" / "interfaces"
    parser.add_argument("--build-dir", type=Path, default=scratch, help="folder for scratch files")
    options = parser.parse_args()
    try:
        if sys.prefix == sys.base_prefix:
            raise GenerateError("this is no virtual environment: run .venv/bin/python interfaces/generate.py")
        if importlib.util.find_spec("rosidl_adapter") is None:
            raise GenerateError(f"rosidl's generators are not in {PREFIX}: install requirements.txt there")
        for folder in sorted(path.parent for path in HERE.glob("*/package.xml")):
            elsewhere = made_elsewhere(folder.name)
            if elsewhere:
                print(f"{folder.name}: already at {elsewhere}, left alone")
                continue
            package = read_package(folder, options.build_dir.resolve())
            print(f"{package.name}: {len(package.messages)} message(s) ...", end="", flush=True)
            start = time.monotonic()
            build(package)
            print(f" {time.monotonic() - start:.0f} s", flush=True)
    except GenerateError as error:
        print(f"\ngenerate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
