"""Prints the machine as one line of JSON: a program of its own, since a GPU's driver may end it."""

from __future__ import annotations

import datetime
import importlib.util
import json
import shutil
import subprocess
from typing import Any

QUERIES = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu")
USED = ("scipy", "safetensors", "rich", "shapely", "trimesh", "embreex", "rosbags", "mcap", "pytest", "hypothesis")
"""What measuring and tests import beside torch and numpy."""
REMEDY = "gpu_check needs a PyTorch that is built with CUDA and a GPU that it sees"


def environment() -> dict[str, Any]:
    """GPU, driver, CUDA, PyTorch and clocks; ``why_not`` where there is nothing to check."""
    missing = " ".join(name for name in USED if importlib.util.find_spec(name) is None)
    found: dict[str, Any] = {"date": datetime.date.today().isoformat(), "missing": missing}
    if importlib.util.find_spec("torch") is None:
        return {**found, "why_not": f"torch is not installed; {REMEDY}"}
    import torch

    found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
    if torch.version.cuda is None:
        return {**found, "why_not": f"PyTorch {torch.__version__} is built without CUDA; {REMEDY}"}
    if not torch.cuda.is_available():
        return {**found, "why_not": f"PyTorch finds no GPU (does nvidia-smi?); {REMEDY}"}
    major, minor = torch.cuda.get_device_capability()
    properties = torch.cuda.get_device_properties(0)
    gpu = {"gpu": torch.cuda.get_device_name(), "architecture": f"{major}{minor}"}
    counts = {"multiprocessors": properties.multi_processor_count, "memory_gb": round(properties.total_memory / 1e9)}
    return {**gpu, **found, **counts, **clocks()}


def clocks() -> dict[str, str]:
    """What nvidia-smi says of the driver and the state of the first GPU; nothing where it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in done.stdout.strip().splitlines()[0].split(",")] if done.returncode == 0 else []
    return dict(zip(QUERIES, values, strict=False))


if __name__ == "__main__":
    print(json.dumps(environment()))
