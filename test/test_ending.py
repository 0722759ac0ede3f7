"""The node's process ends soon and with code 0, whatever it is doing when a signal comes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from ros_process import PATIENCE_S, Robot, ends

BEGIN = "import ctypes, sys, time; from sbnet_perception.node.ending import Ending, leave; ending = Ending()\n"
# A lock that is taken twice: compiled code that no signal wakes. Ready is who has been asleep in it for a while.
STUCK = """
import os, threading
def tell(main):
    asleep = 0
    while asleep < 30:
        asleep = asleep + 1 if open(f"/proc/self/task/{main}/stat").read().rsplit(")")[-1].split()[0] == "S" else 0
        time.sleep(0.01)
    print("ready", flush=True)
lock, take = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
take(lock)
with ending.interrupting():
    threading.Thread(target=tell, args=(threading.get_native_id(),), daemon=True).start()
    take(lock)
"""


def after_signals(program: str, count: int) -> tuple[int, str]:
    """Exit code and output of a program that gets SIGINT and SIGTERM in turn once it has printed `ready`."""
    command = [sys.executable, "-c", BEGIN + program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT)[:count]:
                process.send_signal(number)
            output, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    return process.returncode, output


def test_a_signal_during_compiled_code_that_does_not_return_ends_the_process_all_the_same() -> None:
    code, output = after_signals(STUCK, count=3)
    assert code == 0
    assert output == "sbnet: something under way did not end in time; leaving at once\n"


def test_a_signal_breaks_off_what_may_be_broken_off_and_only_wakes_what_waits_for_the_end() -> None:
    breakable = "try:\n with ending.interrupting(): print('ready', flush=True); time.sleep(600)\n"
    assert after_signals(breakable + "except KeyboardInterrupt: print('orderly'); leave(3)", 1) == (3, "orderly\n")
    assert after_signals("print('ready', flush=True); ending.wait(); print('orderly'); leave(3)", 3) == (3, "orderly\n")


def test_26_sigint_during_configure_ends_the_node_without_waiting_for_it() -> None:
    program = (
        f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import failing_node as f; f.never_configures()"
    )
    robot = Robot({}, program=("-c", program))
    try:
        robot.wait_printed("configuring for ten minutes")
        maps = Path(f"/proc/{robot.process._process.pid}/maps").read_text()
        segments = set(re.findall(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}\b", maps))
        robot.interrupt()
        ends(robot)
    finally:
        code = robot.close()
    assert code == 0, robot.log()
    assert segments and not [name for name in segments if Path(name).exists()], "shared memory is left behind"
    assert not robot.printed("Traceback|rror"), robot.log()
