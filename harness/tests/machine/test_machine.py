"""hardware: whole inventories and samples of recorded machines, and of the one that runs this."""
from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import platform
import re
import socket
import sys
import unittest
from typing import Any, Optional
from unittest import mock

import hardware
from machine import system, linux
from machine import gauges, gpus, inventory, linux, windows
from machine import system as systems

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCHEMA = os.path.join(HERE, os.pardir, "schemas", "hardware.schema.json")
DATA = os.path.join(HERE, "data", "hardware")
MACHINES = sorted(name[:-4] for name in os.listdir(DATA) if name.endswith(".txt"))


class RecordedWatch:
    """Stands for hardware.Watch: lines that were recorded."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self.closed = 0

    def lines(self, skip: int = 0) -> list[str]:
        return self._lines

    def close(self) -> None:
        self.closed += 1


class RecordedMachine(systems.Machine):
    """Answers from a recording; a command is found by how it begins."""

    def __init__(self, name: str) -> None:
        with open(os.path.join(DATA, name + ".txt"), encoding="utf-8") as file:
            text = file.read()
        self.files: dict[str, str] = {}
        self.commands: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.owners: dict[str, int] = {}
        self.asked: list[str] = []
        self.watches: list[RecordedWatch] = []
        for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
            head, _, body = part.partition("\n")
            kind, _, key = head.partition(" ")
            if kind == "system":
                self.system, self.architecture, self.kernel_release = key.split()
            else:
                {"file": self.files, "command": self.commands}[kind][key] = body
        self.python = {"version": "3.12.1", "implementation": "CPython"}

    def read(self, path: str) -> Optional[str]:
        return self.files.get(path)

    def names(self, path: str) -> list[str]:
        inside = [known[len(path) + 1:] for known in (*self.files, *self.links, *self.owners)
                  if known.startswith(path + "/")]
        return sorted({name.split("/")[0] for name in inside})

    def link(self, path: str) -> Optional[str]:
        return self.links.get(path)

    def owner(self, path: str) -> Optional[int]:
        return self.owners.get(path)

    def run(self, argv: Any, limit_s: float = 0.0) -> Optional[str]:
        line = " ".join(argv)
        self.asked.append(line)
        found = next((text for start, text in self.commands.items()
                      if line.startswith(start)), None)
        return found.replace("\n", "\r\n") if found and self.system == "Windows" else found

    def watch(self, argv: Any) -> Any:
        found = self.commands.get("watch " + argv[0])
        if found is None:
            return None
        self.asked.append(" ".join(argv))
        self.watches.append(RecordedWatch(found))
        return self.watches[-1]

    def affinity_count(self) -> Optional[int]:
        return None

    def windows_gauges(self) -> dict[str, Any]:
        return {"cpu_times": systems.windows_cpu_times(700, 800, 200),
                "memory_total_bytes": 1000, "memory_available_bytes": 400,
                "power_source": systems.windows_power_source(1)}

    def processor_features(self, numbers: Any) -> list[int]:
        return [40, 39]

    def copy_bandwidth(self) -> Optional[float]:
        return 51.2


class GarbageMachine(RecordedMachine):
    """Answers everything with the same odd text."""

    def __init__(self, system: str, text: str) -> None:
        super().__init__("linux_wsl2")
        self.system, self.text = system, text

    def read(self, path: str) -> Optional[str]:
        return self.text

    def names(self, path: str) -> list[str]:
        return ["0", "1", "card0", "cpu0", "policy0", "hwmon0", "index0", "intel-rapl:0", "BAT0"]

    def link(self, path: str) -> Optional[str]:
        return self.text

    def run(self, argv: Any, limit_s: float = 0.0) -> Optional[str]:
        return self.text

    def watch(self, argv: Any) -> Any:
        return RecordedWatch(self.text)

    def windows_gauges(self) -> dict[str, Any]:
        raise OSError("no kernel32 here")


def known(found: dict[str, Any]) -> dict[str, Any]:
    """{section: {field: value}} of what was probed, without what is null."""
    def values(section: Any) -> dict[str, Any]:
        return {name: item["value"] for name, item in section.items() if item["value"] is not None}
    return {**{name: values(found[name]) for name in inventory.FIELDS},
            "accelerators": [values(card) for card in found["accelerators"]]}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """What in `value` breaks `schema`, for the keywords that hardware.schema.json uses."""
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].split("/")[-1]], root, at)
    if "anyOf" in schema:
        tried = [problems(value, option, root, at) for option in schema["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int,
                             "boolean": bool, "null": type(None), "number": (int, float)}
    wanted = schema.get("type")
    if wanted and (not isinstance(value, types[wanted]) or (
            isinstance(value, bool) and wanted != "boolean")):
        return [f"{at}: not {wanted}"]
    found = []
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        found.append(f"{at}: not one of those allowed")
    if isinstance(value, dict):
        names = schema["properties"]
        found += [f"{at}.{name}: missing" for name in schema["required"] if name not in value]
        found += [f"{at}.{name}: unknown" for name in value if name not in names]
        for name in names.keys() & value.keys():
            found += problems(value[name], names[name], root, f"{at}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += problems(item, schema["items"], root, f"{at}[{index}]")
    size = len(value) if isinstance(value, (list, str)) else value
    if not isinstance(value, dict) and size is not None:
        low = schema.get("minimum", schema.get("minLength", schema.get("minItems", size)))
        high = schema.get("maxLength", schema.get("maxItems", size))
        found += [] if low <= size <= high else [f"{at}: out of bounds"]
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{at}: not of the pattern")
    return found


def load(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def faults(found: dict[str, Any]) -> list[str]:
    """What in an inventory breaks hardware.schema.json."""
    schema = load(SCHEMA)
    return problems(found, schema, schema)


class Inventory(unittest.TestCase):
    maxDiff = None

    def test_every_recorded_machine_gives_its_whole_inventory(self) -> None:
        expected = load(os.path.join(DATA, "expected.json"))
        self.assertEqual(sorted(expected), MACHINES)
        for name in MACHINES:
            with self.subTest(name):
                found = inventory.inventory(RecordedMachine(name))
                self.assertEqual(known(found), expected[name])
                self.assertEqual(found["accelerators_count"]["value"], len(found["accelerators"]))
                self.assertEqual(faults(found), [])

    def test_the_schema_describes_exactly_the_fields_there_are(self) -> None:
        schema = load(SCHEMA)
        sections = {name: list(part["properties"]) for name, part in schema["properties"].items()
                    if "properties" in part}
        self.assertEqual(sections, {name: list(fields) for name, fields in inventory.FIELDS.items()})
        self.assertEqual(list(schema["properties"]["accelerators"]["items"]["properties"]),
                         list(inventory.ACCELERATOR_FIELDS))

    def test_a_value_that_is_not_known_is_null_with_a_reason(self) -> None:
        found = inventory.inventory(RecordedMachine("linux_wsl2"), measure=False)
        self.assertEqual(found["system"]["kind"], {
            "value": None, "source": None, "reason": "WSL hides the machine that it runs on"})
        self.assertEqual(found["memory"]["bandwidth_measured_gb_per_s"], {
            "value": None, "source": None, "reason": "it was not measured"})

    def test_a_value_that_is_known_says_that_it_was_probed(self) -> None:
        found = inventory.inventory(RecordedMachine("linux_container_cgroup2"))
        self.assertEqual(found["memory"]["swap_bytes"],
                         {"value": 0, "source": "probed", "reason": None})

    def test_no_command_asks_for_what_identifies_a_machine(self) -> None:
        allowed = re.compile(
            r"(?i)nvidia-smi (--version$|--query-gpu=[a-z0-9._,]+ )|udevadm info .* --property=MEM"
            r"|sysctl (-n )?[a-z]|system_profiler -json -detailLevel mini SP|pmset -g( batt)?$"
            r"|lscpu$|lspci -mm -s |systemd-detect-virt --|powerprofilesctl get$|vm_stat$|iostat "
            r"|rocm-smi --showproductname --json$|powershell |powercfg |ioreg .* -c IOAccelerator$")
        for name in MACHINES:
            machine = RecordedMachine(name)
            inventory.inventory(machine)
            gauges.Sampler(machine=machine).close()
            for line in machine.asked:
                with self.subTest(line[:60]):
                    self.assertRegex(line, allowed)
                    self.assertNotRegex(line, r"(?i)serial|uuid|asset|csname|user|hostname|mac_")

    def test_a_serial_number_beside_a_field_that_is_read_is_left_behind(self) -> None:
        machine = RecordedMachine("mac_m1")
        self.assertIn("EXAMPLE-SERIAL", str(machine.commands))
        self.assertNotIn("EXAMPLE-SERIAL", json.dumps(inventory.inventory(machine)))

    def test_an_answer_that_makes_no_sense_leaves_a_valid_inventory(self) -> None:
        texts = ("", "0", "a: b\n" * 50, "[]", "[[{}]]", '{"SPDisplaysDataType": [1, {}, null]}',
                 '{"system": 3, "cpu": [{"Name": 7, "NumberOfCores": -1}], "gpu": {"Name": []}}',
                 "\ufffd\0\x1b[31m" * 9, "-1", "9" * 5000, "[" * 5000, ") ) " * 40, ",,,,,,,",
                 "0, 1, 2, 3, 4, 5, 0xz", "max 0", "0::/../..\n1:memory:\n", "100000 0")
        for system in ("Linux", "Darwin", "Windows", "Plan9"):
            for text in texts:
                with self.subTest(system=system, text=text[:40]):
                    machine = GarbageMachine(system, text)
                    self.assertEqual(faults(inventory.inventory(machine)), [])
                    sampler = gauges.Sampler(80, machine)
                    self.assertEqual(list(sampler.sample()), [*gauges.GAUGES, "gpus"])
                    sampler.close()

    def test_a_prober_that_fails_leaves_a_valid_inventory(self) -> None:
        with mock.patch.object(linux, "linux_cpu", side_effect=ZeroDivisionError):
            found = inventory.inventory(RecordedMachine("linux_laptop"))
        self.assertEqual(faults(found), [])
        self.assertEqual(found["accelerators_count"]["value"], None)

    @unittest.skipUnless(platform.system() == "Linux", "reads this machine as Linux tells it")
    def test_this_machine_is_told_truly_and_without_its_names(self) -> None:
        found = inventory.inventory(measure=False)
        self.assertEqual(faults(found), [])
        self.assertEqual(found["cpu"]["threads_count"]["value"],
                         os.sysconf("SC_NPROCESSORS_ONLN"))
        self.assertEqual(found["memory"]["capacity_bytes"]["value"],
                         os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        told = dict(found, system=dict(found["system"], kind=None, virtualization=None))
        names = {getpass.getuser(), socket.gethostname(), socket.gethostname().split(".")[0]}
        for name in names - {"localhost"}:       # "vm" may be a host's name and is a kind as well
            self.assertNotRegex(json.dumps(told), rf"(?i)\b{re.escape(name)}\b")


class Parts(unittest.TestCase):
    def test_a_kernel_release_ends_before_the_first_word_of_ones_own(self) -> None:
        cases = {"6.8.0-45-generic": "6.8.0-45-generic", "6.18.44-fc-v657": "6.18.44",
                 "6.1.0-annas-laptop+": "6.1.0", "5.15.0-1067-aws": "5.15.0-1067-aws",
                 "4.18.0-553.el8_10.x86_64": "4.18.0-553.el8_10.x86_64",
                 "6.10.3-arch1-2": "6.10.3-arch1-2", "5.15.136-tegra": "5.15.136-tegra",
                 "anna": None, "": None, None: None}
        self.assertEqual({text: linux.public_kernel_release(text) for text in cases}, cases)

    def test_numbers_are_read_only_where_the_text_is_one(self) -> None:
        cases = {"12": 12.0, " 24.61\n": 24.61, "-3": -3.0, "[N/A]": None, "": None, "nan": None,
                 "1e5": None, "12 W": None, "1,5": None, "٣": None, None: None}
        self.assertEqual({text: systems.number(text) for text in cases}, cases)

    def test_channels_are_counted_where_modules_name_them(self) -> None:
        def module(place: str, speed: Optional[int] = 3200) -> systems.Module:
            return systems.Module("DDR4", speed, 64, place)

        two_on_one = [module("BANK 0 ChannelA-DIMM0"), module("BANK 1 ChannelA-DIMM1", 2933)]
        self.assertEqual(systems.memory_of_modules(two_on_one), {
            "type": "DDR4", "speed_mts": 2933, "channels_count": 1,
            "bandwidth_theoretical_gb_per_s": 23.5})
        sockets = [module("P0 CHANNEL A DIMM 0"), module("P1 CHANNEL A DIMM 0")]
        self.assertEqual(systems.memory_of_modules(sockets)["channels_count"], 2)
        for vague in ([module("BANK 0 DIMM_A1")], [module("x", None)], []):
            found = systems.memory_of_modules(vague)
            self.assertEqual(found["channels_count"], None)
            self.assertNotIn("bandwidth_theoretical_gb_per_s", found)

    def test_a_power_plan_of_ones_own_keeps_its_name_to_itself(self) -> None:
        line = "Power Scheme GUID: 12345678-1234-1234-1234-123456789abc  (Anna plays)"
        self.assertEqual(windows.parse_power_scheme(line), "custom")
        self.assertEqual(windows.parse_power_scheme(None), None)

    def test_guest_time_is_not_counted_twice_and_waiting_is_idle(self) -> None:
        line = "cpu  100 5 50 800 45 2 3 10 60 4\ncpu0 1 1\n"
        self.assertEqual(linux.parse_proc_stat(line),
                         systems.CpuTimes(busy=160, stolen=10, total=1015))

    def test_a_process_may_be_named_like_its_own_line(self) -> None:
        line = "42 (a) S 1 (x) R 7 42 42 0 -1 4194560 10 0 0 0 250 50 9 9 20 0 4 0 100 0 0"
        self.assertEqual(systems.parse_process_stat(line), systems.Process(7, 300, "a) S 1 (x"))
        self.assertEqual(systems.parse_process_stat("42 (a) S 1"), None)

    def test_energy_goes_on_where_the_counter_begins_again(self) -> None:
        before, after = {"a": (990, 1000), "b": (5, 9)}, {"a": (20, 1000)}
        self.assertEqual(linux.energy_between(before, after), 30)

    def test_bytes_read_and_bytes_written_count_as_bandwidth(self) -> None:
        clock = (at * 0.01 for at in range(100))           # every round takes 10 ms
        with mock.patch.object(system, "COPY_ROUND_S", 0.01), \
                mock.patch("time.perf_counter", lambda: next(clock)):
            self.assertEqual(systems.copy_bandwidth_gb_per_s(2, 10_000_000), 2.0)

    def test_rounds_that_other_programs_slowed_do_not_count_as_the_memorys_speed(self) -> None:
        took_s = iter([0.01, *[0.04] * 24, 0.01])          # all but one take four times as long
        clock = (moment for before in took_s for moment in (100.0, 100.0 + before))
        with mock.patch.object(system, "COPY_ROUND_S", 0.01), \
                mock.patch("time.perf_counter", lambda: next(clock)):
            self.assertEqual(systems.copy_bandwidth_gb_per_s(2, 10_000_000), 2.0)

    def test_small_cores_are_told_by_their_capacity(self) -> None:
        machine = RecordedMachine("linux_raspberry_pi")
        folder = "/sys/devices/system/cpu/cpu"
        for cpu, capacity in enumerate((530, 530, 530, 530, 900, 900, 1024)):
            machine.files.update({
                f"{folder}{cpu}/cpu_capacity": str(capacity), f"{folder}{cpu}/topology/core_id":
                str(cpu), f"{folder}{cpu}/topology/physical_package_id": "0"})
        found = known(inventory.inventory(machine))["cpu"]
        self.assertEqual((found["performance_cores_count"], found["efficiency_cores_count"]),
                         (3, 4))

    def test_a_limit_above_the_memory_there_is_is_none(self) -> None:
        machine = RecordedMachine("linux_container_cgroup2")
        machine.files["/sys/fs/cgroup/memory.max"] = "99000000000"
        self.assertNotIn("limit_bytes", known(inventory.inventory(machine))["memory"])


LISTENING = "  sl  local_address\n   0: 0100007F:2CAA 00000000:0000 0A 0:0 0:0 0 {user} 0 777 1 0\n"


def stat(parent: int, ticks: int, name: str = "x") -> str:
    return f"1 ({name}) S {parent} 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0"


def with_processes(user: int, name: str = "llama-server", readable: bool = True) -> RecordedMachine:
    """A laptop with us, a server (70) that listens on 11434, its child (71) and a stranger (80)."""
    machine = RecordedMachine("linux_laptop")
    machine.files["/proc/net/tcp"] = LISTENING.format(user=user)
    for pid, parent, command in ((os.getpid(), 1, "python3"), (70, 1, name), (71, 70, "runner"),
                                 (80, 1, "make")):
        machine.files[f"/proc/{pid}/stat"] = stat(parent, 0, command)
        machine.owners[f"/proc/{pid}"] = user if pid in (70, 71) else 1000
    if readable:
        machine.links["/proc/70/fd/3"] = "socket:[777]"
        machine.links["/proc/80/fd/3"] = "socket:[778]"
    return machine


def use(machine: RecordedMachine, ticks: dict[int, int], busy: int, idle: int) -> None:
    """Sets what processes and the whole machine have used, in ticks."""
    machine.files["/proc/stat"] = f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n"
    for pid, used in ticks.items():
        text = machine.files.get(f"/proc/{pid}/stat", stat(71, 0))
        parent = systems.parse_process_stat(text)
        assert parent is not None
        machine.files[f"/proc/{pid}/stat"] = stat(parent.parent, used, parent.command)


class Server(unittest.TestCase):
    def find(self, machine: RecordedMachine) -> set[int]:
        processes = systems.list_processes(machine)
        return set(systems.find_server(machine, processes, 11434))

    def test_the_process_that_holds_the_listening_socket_is_the_server(self) -> None:
        self.assertEqual(self.find(with_processes(user=1000)), {70})

    def test_a_service_user_of_its_own_stands_for_the_server(self) -> None:
        self.assertEqual(self.find(with_processes(user=998, readable=False)), {70, 71})

    def test_a_server_of_root_that_cannot_be_read_stays_unknown(self) -> None:
        self.assertEqual(self.find(with_processes(user=0, readable=False)), set())

    def test_a_forwarder_is_not_the_server(self) -> None:
        self.assertEqual(self.find(with_processes(user=0, name="docker-proxy")), set())

    def test_another_port_is_another_server(self) -> None:
        machine = with_processes(user=1000)
        processes = systems.list_processes(machine)
        self.assertEqual(systems.find_server(machine, processes, 11435), frozenset())


class Samples(unittest.TestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.start(mock.patch.object(system, "GAUGE_SHARE", 1e12))     # no rests
        self.start(mock.patch.object(os, "getloadavg", lambda: (1.236, 0, 0), create=True))

    def start(self, patch: Any) -> None:
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_laptop_on_battery_with_a_hot_card(self) -> None:
        machine = with_processes(user=1000)
        use(machine, {}, busy=1000, idle=9000)
        sampler = gauges.Sampler(11434, machine)
        # 1000 ticks pass: 600 busy, of them 100 ours, 200 the server's, 150 its new child's.
        use(machine, {os.getpid(): 100, 70: 50, 71: 150, 72: 150, 80: 140}, busy=1600, idle=9400)
        machine.files["/sys/class/powercap/intel-rapl:0/energy_uj"] = "4000149"
        self.assertEqual(sampler.sample(), {
            "load_1m": 1.24, "memory_used_bytes": 7113916416, "memory_available_bytes": 9341145088,
            "swap_used_bytes": 268697600, "cpu_mhz": 4200.0, "cpu_throttle_count": 17,
            "cpu_busy_ratio": 0.6, "cpu_steal_ratio": 0.0, "other_cpu_busy_ratio": 0.15,
            "power_source": "battery", "temperature_c": 71.0, "energy_uj": 4000999,
            "gpus": [{"index": 0, "busy_ratio": 0.97, "memory_used_bytes": 3753902080,
                      "power_w": 24.61, "temperature_c": 83.0, "clock_mhz": 1402.0,
                      "throttled": True}]})
        sampler.close()
        sampler.close()
        self.assertEqual(machine.watches[0].closed, 1)
        self.assertIn("clocks_throttle_reasons.active --format=csv,noheader,nounits -l 5",
                      machine.asked[-1])

    def test_without_a_port_nobody_is_called_a_stranger(self) -> None:
        machine = with_processes(user=1000)
        sampler = gauges.Sampler(None, machine)
        use(machine, {80: 500}, busy=2000, idle=9400)
        self.assertEqual(sampler.sample()["other_cpu_busy_ratio"], None)

    def test_a_desktop_with_an_amd_card(self) -> None:
        found = gauges.Sampler(machine=RecordedMachine("linux_amd_desktop")).sample()
        self.assertEqual(found["gpus"], [{
            "index": 0, "busy_ratio": 0.98, "memory_used_bytes": 21474836480, "power_w": 312.0,
            "temperature_c": 64.0, "clock_mhz": 2482.0, "throttled": None}])

    def test_a_raspberry_pi(self) -> None:
        found = gauges.Sampler(machine=RecordedMachine("linux_raspberry_pi")).sample()
        self.assertEqual((found["cpu_mhz"], found["temperature_c"], found["power_source"]),
                         (1500.0, 48.8, None))

    def test_a_mac(self) -> None:
        self.assertEqual(gauges.Sampler(11434, RecordedMachine("mac_m1")).sample(), {
            "load_1m": 1.24, "memory_used_bytes": 6738542592, "memory_available_bytes": 1851392000,
            "swap_used_bytes": 1272184832, "cpu_mhz": None, "cpu_throttle_count": None,
            "cpu_busy_ratio": 0.47, "cpu_steal_ratio": None, "other_cpu_busy_ratio": None,
            "power_source": "battery", "temperature_c": None, "energy_uj": None,
            "gpus": [{"index": 0, "busy_ratio": 0.91, "memory_used_bytes": 2147483648,
                      "power_w": None, "temperature_c": None, "clock_mhz": None,
                      "throttled": None}]})

    def test_windows(self) -> None:
        machine = RecordedMachine("windows_desktop")
        sampler = gauges.Sampler(11434, machine)
        later = dict(machine.windows_gauges(), cpu_times=systems.windows_cpu_times(775, 900, 200))
        with mock.patch.object(machine, "windows_gauges", lambda: later):
            found = sampler.sample()
        self.assertEqual({name: value for name, value in found.items() if value is not None}, {
            "load_1m": 1.24, "memory_used_bytes": 600, "memory_available_bytes": 400,
            "cpu_busy_ratio": 0.25, "cpu_steal_ratio": 0.0, "power_source": "ac", "gpus": []})

    def test_a_card_that_holds_back_for_its_power_limit_alone_is_not_throttled(self) -> None:
        lines = ["1, [N/A], [N/A], [N/A], 40, 300, 0x0000000000000004", "0, 1, 2, 3, 4, 5",
                 "NVIDIA-SMI has failed"]
        self.assertEqual(
            [(card["index"], card["busy_ratio"], card["throttled"])
             for card in gpus.parse_nvidia_gauges(lines)], [(0, 0.01, None), (1, None, False)])

    def test_a_gauge_that_took_long_rests_before_it_is_read_again(self) -> None:
        sampler = gauges.Sampler(machine=RecordedMachine("linux_wsl2"))
        clock = iter((100.0, 100.2, 110.0, 121.0, 121.0))
        with mock.patch.object(system, "GAUGE_SHARE", 0.01), \
                mock.patch("time.monotonic", lambda: next(clock)):
            self.assertEqual([sampler._quietly("dear", lambda: 7) for _ in range(3)], [7, None, 7])

    @unittest.skipUnless(platform.system() == "Linux", "reads this machine as Linux tells it")
    def test_this_machine_is_sampled_cheaply_and_in_silence(self) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            sampler = gauges.Sampler(1)
            began_s = os.times()
            found = sampler.sample()
            ended_s = os.times()
            sampler.close()
        self.assertEqual(out.getvalue(), "")
        self.assertGreater(found["memory_available_bytes"], 0)
        # 1 % of a core at a sample every five seconds.
        self.assertLess(sum(ended_s[:4]) - sum(began_s[:4]), 0.05)


class Children(unittest.TestCase):
    def test_the_latest_line_of_each_card_is_kept_until_it_is_stale(self) -> None:
        watch = systems.Watch([sys.executable, "-c", "print('0, 1\\n1, 5\\n0, 2')"])
        watch._thread.join(10)
        self.assertEqual(sorted(watch.lines()), ["0, 2", "1, 5"])
        self.assertEqual((watch.lines(skip=2) != [], watch.lines(skip=3)), (True, []))
        with mock.patch.object(system, "STALE_AFTER_S", -1):
            self.assertEqual(watch.lines(), [])
        watch.close()

    def test_a_child_that_would_last_is_ended(self) -> None:
        watch = systems.Watch([sys.executable, "-c", "import time; time.sleep(60)"])
        watch.close()
        self.assertIsNotNone(watch._child.returncode)

    def test_a_command_that_is_not_there_is_null(self) -> None:
        self.assertEqual((systems.Machine().run(["no-such-command-here"]),
                          systems.Machine().watch(["no-such-command-here"])), (None, None))

    def test_a_command_that_hangs_is_given_up(self) -> None:
        argv = [sys.executable, "-c", "import time; time.sleep(60)"]
        self.assertEqual(systems.Machine().run(argv, 0.05), None)


class Command(unittest.TestCase):
    def run_main(self, *argv: str) -> tuple[int, str]:
        out, made = io.StringIO(), inventory.inventory(RecordedMachine("linux_laptop"))
        with mock.patch.object(inventory, "inventory", lambda measure: made), \
                mock.patch.object(hardware, "busy_now", lambda sampler: "42%"), \
                contextlib.redirect_stdout(out):
            return hardware.main(argv), out.getvalue()

    def test_json_is_the_inventory_itself(self) -> None:
        code, text = self.run_main("--json")
        self.assertEqual((code, json.loads(text)),
                         (0, inventory.inventory(RecordedMachine("linux_laptop"))))

    def test_the_table_has_a_line_for_every_field_and_says_why_one_is_empty(self) -> None:
        code, text = self.run_main()
        table, _, last = text.strip().rpartition("\n\n")
        rows = dict(line.split("  ", 1) for line in table.splitlines())
        shown = {name: rows[name].strip() for name in (
            "system.kind", "memory.capacity_bytes", "memory.limit_bytes",
            "accelerators[0].model_name", "cpu.instruction_sets")}
        self.assertEqual((code, shown), (0, {
            "system.kind": "laptop", "memory.capacity_bytes": "16455061504 (15.3 GiB)",
            "memory.limit_bytes": "(no limit below the capacity is set)",
            "accelerators[0].model_name": "NVIDIA RTX A500 Laptop GPU",
            "cpu.instruction_sets": "avx avx2 avx_vnni f16c fma"}))
        self.assertEqual(last, "processors in use just now: 42%")

    def test_how_busy_the_machine_is_comes_from_the_second_before(self) -> None:
        for ratio, words in ((0.975, "98%"), (0.0, "0%"),
                             (None, "(the system does not tell it at once)")):
            sampler, paused = mock.Mock(), []
            sampler.sample.return_value = {"cpu_busy_ratio": ratio}
            with self.subTest(ratio=ratio):
                self.assertEqual(hardware.busy_now(sampler, paused.append), words)
                self.assertEqual((paused, sampler.close.call_count), ([gauges.BUSY_LOOK_S], 1))

    def test_an_unknown_flag_ends_with_2(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
            hardware.main(["--declare"])
        self.assertEqual(caught.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
