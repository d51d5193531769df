"""Test inventories and gauges with recorded machines, and with this one."""
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
import time
import unittest
from typing import Any, Optional
from unittest import mock

import hardware
from check import documents
from complete import metadata
from core import schema
from machine import gauges, gpus, inventory, linux, macos, processes, system, windows

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(HERE, "data", "hardware")
MACHINES = sorted(name[:-4] for name in os.listdir(DATA) if name.endswith(".txt"))


class RecordedWatch:
    """Recorded lines in place of system.Watch."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self.closed = 0

    def lines(self, skip: int = 0) -> list[str]:
        return self._lines

    def close(self) -> None:
        self.closed += 1


class RecordedMachine(system.Machine):
    """Answers from a recording; a recorded command matches by its beginning."""

    def __init__(self, name: str, text: str = "") -> None:
        if not text:
            with open(os.path.join(DATA, name + ".txt"), encoding="utf-8") as file:
                text = file.read()
        self.files: dict[str, str] = {}
        self.commands: dict[str, str] = {}
        self.right: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.owners: dict[str, int] = {}
        self.asked: list[str] = []
        self.watches: list[RecordedWatch] = []
        for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
            head, _, body = part.partition("\n")
            kind, _, key = head.partition(" ")
            if kind == "system":
                self.system, self.architecture, self.kernel_release = key.split()
                continue
            known = {"file": self.files, "command": self.commands, "right": self.right}[kind]
            many = re.search(r"{(\d+)-(\d+)}", key)       # one file each, with the number for {}
            for at in range(int(many[1]), int(many[2]) + 1) if many else [0]:
                known[key.replace(many[0], str(at)) if many else key] = (
                    body.replace("{}", str(at)) if many else body)
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

    def affinity(self) -> Optional[set[int]]:
        return None

    def windows_gauges(self) -> dict[str, Any]:
        return {"cpu_times": system.windows_cpu_times(700, 800, 200),
                "memory_total_bytes": 1000, "memory_available_bytes": 400,
                "power_source": system.windows_power_source(1)}

    def processor_features(self, numbers: Any) -> list[int]:
        return [40, 39]

    def copy_bandwidth(self) -> Optional[float]:
        return 51.2


class GarbageMachine(RecordedMachine):
    """Answers every question with the same text."""

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
    """{section: {field: value}} without nulls."""
    def values(section: Any) -> dict[str, Any]:
        return {name: item["value"] for name, item in section.items() if item["value"] is not None}
    return {**{name: values(found[name]) for name in inventory.FIELDS},
            "accelerators": [values(card) for card in found["accelerators"]]}


def load(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def faults(found: dict[str, Any]) -> list[Any]:
    """What in an inventory does not fit hardware.schema.json, or is not accepted by the check."""
    return [*schema.validate(found, "hardware"),
            *documents.unwritten(dict(metadata.values(found)))]


class Inventory(unittest.TestCase):
    maxDiff = None

    def test_recorded_machines_give_the_expected_inventories(self) -> None:
        expected = load(os.path.join(DATA, "expected.json"))
        self.assertEqual(sorted(expected), MACHINES)
        for name in MACHINES:
            with self.subTest(name):
                found = inventory.inventory(RecordedMachine(name))
                self.assertEqual(known(found), expected[name])
                self.assertEqual(found["accelerators_count"]["value"] or 0,
                                 len(found["accelerators"]))
                self.assertEqual(faults(found), [])

    def test_machines_of_public_reports_give_the_values_written_beside_them(self) -> None:
        with open(os.path.join(HERE, "data", "machines.txt"), encoding="utf-8") as file:
            parts = re.split(r"^=== ", file.read(), flags=re.MULTILINE)[1:]
        for part in parts:
            name, _, text = part.partition("\n")
            machine = RecordedMachine(name, text)
            found = inventory.inventory(machine, measure=False)
            values = known(found)
            values["accelerators"] = [
                [card.get(field) for field in ("model_name", "vendor", "memory_bytes",
                                               "compute_api")] for card in values["accelerators"]]
            if found["accelerators_count"]["value"] is None:
                values["accelerators"] = None
            for line in machine.right[""].splitlines():
                path, _, right = line.partition(" = ")
                with self.subTest(name, path=path):
                    section, _, field = path.partition(".")
                    self.assertEqual(values[section].get(field) if field else values[section],
                                     json.loads(right))
            with self.subTest(name):
                self.assertEqual(faults(found), [])

    def test_an_unknown_value_is_null_with_a_reason(self) -> None:
        found = inventory.inventory(RecordedMachine("linux_wsl2"), measure=False)
        self.assertEqual(found["system"]["kind"], {
            "value": None, "source": None, "reason": "WSL hides the machine that it runs on"})
        self.assertEqual(found["memory"]["bandwidth_measured_gb_per_s"], {
            "value": None, "source": None,
            "reason": "it was not measured, or other programs used the processors"})

    def test_a_known_value_is_marked_as_probed(self) -> None:
        found = inventory.inventory(RecordedMachine("linux_container_cgroup2"))
        self.assertEqual(found["memory"]["swap_bytes"],
                         {"value": 0, "source": "probed", "reason": None})

    def test_no_command_asks_for_identifiers(self) -> None:
        allowed = re.compile(
            r"(?i)nvidia-smi($| --version$| --query-gpu=[a-z0-9._,]+ )"
            r"|udevadm info --query=property --path=/devices/virtual/dmi/id( --property=MEM|$)"
            r"|sysctl (-n )?[a-z]|system_profiler -json -detailLevel mini SP|pmset -g( batt)?$"
            r"|lscpu$|lspci -mm -s |systemd-detect-virt --|powerprofilesctl get$|vm_stat$|iostat "
            r"|getprop ro\.(product\.(manufacturer|model)|build\.version\.release)$"
            r"|rocm-smi --show(productname|bus) --json$|powershell |powercfg "
            r"|ioreg .* -c IOAccelerator$")
        for name in MACHINES:
            machine = RecordedMachine(name)
            inventory.inventory(machine)
            gauges.Sampler(machine=machine).close()
            for line in machine.asked:
                with self.subTest(line[:60]):
                    self.assertRegex(line, allowed)
                    self.assertNotRegex(line, r"(?i)serial|uuid|asset|csname|user|hostname|mac_")

    def test_serial_numbers_in_listings_are_not_read(self) -> None:
        machine = RecordedMachine("mac_m1")
        self.assertIn("EXAMPLE-SERIAL", str(machine.commands))
        self.assertNotIn("EXAMPLE-SERIAL", json.dumps(inventory.inventory(machine)))

    def test_nonsense_answers_leave_a_valid_inventory(self) -> None:
        texts = ("", "0", "a: b\n" * 50, "[]", "[[{}]]", '{"SPDisplaysDataType": [1, {}, null]}',
                 '{"gpu": {"Name": "Intel Arc"}, "gpu_memory": {"DriverDesc": [1]}}',
                 '{"system": 3, "cpu": [{"Name": 7, "NumberOfCores": -1}], "gpu": {"Name": []}}',
                 "\ufffd\0\x1b[31m" * 9, "-1", "9" * 5000, "[" * 5000, ") ) " * 40, ",,,,,,,",
                 "0, 1, 2, 3, 4, 5, 0xz", "max 0", "0::/../..\n1:memory:\n", "100000 0")
        for name in ("Linux", "Android", "Darwin", "Windows", "Plan9"):
            for text in texts:
                with self.subTest(system=name, text=text[:40]):
                    machine = GarbageMachine(name, text)
                    self.assertEqual(faults(inventory.inventory(machine)), [])
                    sampler = gauges.Sampler(80, machine)
                    self.assertEqual(list(sampler.sample()), [*gauges.GAUGES, "gpus"])
                    sampler.close()

    def test_a_failing_prober_leaves_a_valid_inventory(self) -> None:
        with mock.patch.object(linux, "cpu", side_effect=ZeroDivisionError):
            found = inventory.inventory(RecordedMachine("linux_laptop"))
        self.assertEqual(faults(found), [])
        self.assertEqual(found["accelerators_count"]["value"], None)

    @unittest.skipUnless(platform.system() == "Linux", "reads this machine as Linux reports it")
    def test_inventory_of_this_machine_is_right_and_without_names(self) -> None:
        found = inventory.inventory(measure=False)
        self.assertEqual(faults(found), [])
        self.assertEqual(found["cpu"]["threads_count"]["value"],
                         os.sysconf("SC_NPROCESSORS_ONLN"))
        self.assertEqual(found["memory"]["capacity_bytes"]["value"],
                         os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        without_kind = dict(found, system=dict(found["system"], kind=None, virtualization=None))
        names = {getpass.getuser(), socket.gethostname(), socket.gethostname().split(".")[0]}
        for name in names - {"localhost"}:       # "vm" may be a host's name and is a kind as well
            self.assertNotRegex(json.dumps(without_kind), rf"(?i)\b{re.escape(name)}\b")


class Parts(unittest.TestCase):
    def test_kernel_release_ends_before_a_private_word(self) -> None:
        cases = {"6.8.0-45-generic": "6.8.0-45-generic", "6.18.44-fc-v657": "6.18.44",
                 "6.1.0-annas-laptop+": "6.1.0", "5.15.0-1067-aws": "5.15.0-1067-aws",
                 "4.18.0-553.el8_10.x86_64": "4.18.0-553.el8_10.x86_64",
                 "6.10.3-arch1-2": "6.10.3-arch1-2", "5.15.136-tegra": "5.15.136-tegra",
                 "6.14.8-2-bpo12-pve": "6.14.8-2-bpo12-pve", "6.6.44-al1ce": "6.6.44",
                 "6.17.7-ba22.fc43.x86_64": "6.17.7-ba22.fc43.x86_64",
                 "6.6.0-72.0.0.76.oe2403sp1.x86_64": "6.6.0-72.0.0.76.oe2403sp1.x86_64",
                 "6.12.31-0-virt": "6.12.31-0-virt", "2022Server": "2022Server",
                 "6.14.10-orbstack-00291-g1b252bd3edea": "6.14.10-orbstack-00291-g1b252bd3edea",
                 "6.8.0-gina": "6.8.0", "anna": None, "": None, None: None}
        self.assertEqual({text: linux.public_kernel_release(text) for text in cases}, cases)

    def test_processors_of_other_architectures_are_named(self) -> None:
        arm = "processor\t: 0\nCPU implementer\t: {}\nCPU part\t: {}\n"
        for text, model, vendor in (        # from public reports
                ("processor\t: 0\nCPU Family\t: Loongson-64bit\nModel Name\t: Loongson-3A6000\n",
                 "Loongson-3A6000", None),
                ("processor\t: 0\nhart\t: 2\nisa\t: rv64imafdc\nuarch\t: sifive,u74-mc\n",
                 "sifive,u74-mc", None),
                ("processor\t: 0\nmodel name\t: Spacemit(R) X60\nuarch\t: spacemit,x60\n",
                 "Spacemit(R) X60", None),
                ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 3800MHz\n",
                 "POWER9, altivec supported", None),
                (arm.format("0x70", "0x662"), "FTC662", "Phytium"),
                (arm.format("0x6d", "0xd49"), "Azure-Cobalt-100", "Microsoft"),
                (arm.format("0x48", "0xd01"), "TaiShan-v110", "HiSilicon"),
                (arm.format("0x46", "0x001"), "A64FX", "Fujitsu"),
                (arm.format("0x41", "0xd0c"), "Neoverse-N1", "ARM"),
                (arm.format("0x41", "0xfff"), None, "ARM")):
            with self.subTest(text):
                found = linux.parse_cpuinfo(text)
                self.assertEqual((found["model_name"], found["vendor"], found["threads_count"]),
                                 (model, vendor, 1))
        self.assertEqual(linux.parse_lscpu("Vendor ID:   ARM\n  Model name:   -\n"),
                         {"vendor": "ARM"})

    def test_number_reads_only_plain_numbers(self) -> None:
        cases = {"12": 12.0, " 24.61\n": 24.61, "-3": -3.0, "[N/A]": None, "": None, "nan": None,
                 "1e5": None, "12 W": None, "1,5": None, "٣": None, None: None}
        self.assertEqual({text: system.number(text) for text in cases}, cases)

    def test_channels_are_counted_if_modules_name_them(self) -> None:
        cases = {
            "desktop": (("BANK 0 ChannelA-DIMM0", "BANK 1 ChannelA-DIMM1"), 1),
            "AMD": (("P0 CHANNEL A DIMM 0", "P0 CHANNEL B DIMM 0"), 2),
            "two sockets": (("P0 CHANNEL A DIMM 0", "P1 CHANNEL A DIMM 0"), 2),
            "Supermicro": (("P0_Node0_Channel0_Dimm0 P1-DIMMA1",
                            "P1_Node1_Channel0_Dimm0 P2-DIMMA1"), 2),
            "nodes": (("NODE 0 CHANNEL 0 DIMM 0", "NODE 1 CHANNEL 0 DIMM 0"), 2),
            "Kunpeng": (("SOCKET 0 CHANNEL 1 DIMM 0", "SOCKET 1 CHANNEL 1 DIMM 0"), 2),
            "Intel": (("BANK 0 Controller0-ChannelA-DIMM0", "BANK 0 Controller1-ChannelA-DIMM0"),
                      2),
            "letters": (("BANK 0 Controller0-DIMMA2", "BANK 0 Controller0-DIMMA1"), 1),
            "Gigabyte": (("DIMM_P0_A0", "DIMM_P0_B0", "DIMM_P1_A0"), 3),
            "slots only": (("BANK 0 DIMM_A1", "BANK 1 DIMM_B1"), None),
            "one unnamed": (("Channel A", "BANK 1"), None)}
        for name, (places, count) in cases.items():
            found = system.memory_of_modules(
                [system.Module("DDR4", 3200, 64, place) for place in places])
            self.assertEqual(found["channels_count"], count, name)

    def test_unknown_speeds_widths_and_types_of_modules_are_null(self) -> None:
        def read(*modules: tuple[Any, Optional[int], Optional[int]]) -> dict[str, Any]:
            return system.memory_of_modules([
                system.Module(*module, f"Channel{at}") for at, module in enumerate(modules)])

        self.assertEqual(read(("DDR4", 3200, 64), ("DDR4", 2933, 72)), {
            "type": "DDR4", "speed_mts": 2933, "channels_count": 2,
            "bandwidth_theoretical_gb_per_s": 46.9})
        for modules in ([("Other", 0xffff, 0)], [("<OUT OF SPEC>", 0, None)],
                        [("Unknown", None, 0)], [("DDR4", 3200, 0xffff), ("DDR5", None, 64)], []):
            found = read(*modules)
            self.assertEqual((found["type"], found["speed_mts"]), (None, None))
            self.assertNotIn("bandwidth_theoretical_gb_per_s", found)
        for text, name in (("lp_ddr4", "LPDDR4"), ("LPDDR5X", "LPDDR5X"), ("DDR4 SDRAM", "DDR4"),
                           ("DRAM", None), (None, None)):
            self.assertEqual(system.memory_type(text), name, text)

    def test_fillers_are_not_published(self) -> None:
        for text in ("To Be Filled By O.E.M.", "To be filled by O.E.M", "Default string", "Unknown",
                     "Not Specified", "System Product Name", "Other", "0xFFFF", "[N/A]", "ERR!",
                     "[Not Supported]", "<OUT OF SPEC>", "None", "O.E.M.", "INVALID", "FFFFFFFF",
                     "All Series", "", "-", "[Unknown Error]", "Undefined", "Empty"):
            self.assertIsNone(system.clean(text), text)
        for text in ("X570 AORUS ELITE", "Others Inc.", "Nano", "Dell Inc.", "82XV", "F5"):
            self.assertEqual(system.clean(text), text)

    def test_integrated_graphics_by_name(self) -> None:
        for name in ("NVIDIA GB10", "Orin (nvgpu)", "NVIDIA Thor", "AMD Radeon(TM) Graphics",
                     "AMD Radeon(TM) 780M", "AMD Radeon 890M Graphics", "Radeon 8060S Graphics",
                     "Intel(R) UHD Graphics 770", "Intel(R) Iris(R) Xe Graphics",
                     "Intel(R) Arc(TM) Graphics", "Intel(R) Arc(TM) 140V GPU (16GB)",
                     "Intel(R) Graphics", "Qualcomm(R) Adreno(TM) X1-85 GPU",
                     "AMD Radeon(TM) Vega 8 Graphics", "AMD Custom GPU 0932"):
            self.assertRegex(name, gpus.INTEGRATED)
        for name in ("NVIDIA GeForce RTX 4070", "AMD Radeon RX 9070 XT", "Radeon RX Vega 64",
                     "Intel(R) Arc(TM) A770 Graphics", "Intel(R) Arc(TM) B580 Graphics",
                     "AMD Radeon PRO W7900", "AMD Radeon™ RX 7600M XT", "NVIDIA GH200 480GB",
                     "Intel(R) Arc(TM) Pro B70 Graphics", "AMD Radeon AI PRO R9700",
                     "Intel(R) Iris(R) Xe MAX Graphics"):
            self.assertNotRegex(name, gpus.INTEGRATED)

    def test_nvidia_values_that_are_not_numbers_are_null(self) -> None:
        line = "{}, [N/A], 550.1, [Not Supported], ERR!, [Unknown Error], N/A, [GPU is lost]"
        for name, known_as in (("NVIDIA X", "NVIDIA X"), ("ERR!", None)):
            card = gpus.parse_nvidia(line.format(name), None)[0]
            self.assertEqual({key: value for key, value in card.items() if value},
                             {"vendor": "NVIDIA", "driver_version": "550.1",
                              **({"model_name": known_as} if known_as else {})})

    def test_output_in_the_code_page_of_a_console_is_decoded(self) -> None:
        with mock.patch.object(system, "CONSOLE_ENCODING", "cp936"):
            self.assertEqual(system.decode("专业版".encode("gbk")), "专业版")
        self.assertEqual(system.decode("专业版 Radeon™".encode()), "专业版 Radeon™")

    def test_hypervisors_are_named_by_firmware(self) -> None:
        for vendor, model, name in (
                ("Amazon EC2", "c7g.large", "amazon"), ("Amazon EC2", "c7g.metal", None),
                ("DigitalOcean", "Droplet", "kvm"), ("Vultr", "VHP", "kvm"),
                ("Microsoft Corporation", "Virtual Machine", "hyper-v"),
                ("Microsoft Corporation", "Cloud PC Enterprise 4vCPU/16GB/128GB", "hyper-v"),
                ("Microsoft Corporation", "Surface Pro 6", None), (None, None, None)):
            self.assertEqual(system.hypervisor(vendor, model), name)

    def test_a_laptops_power_limit_is_the_enforced_one(self) -> None:
        machine = RecordedMachine("nvidia_a2000_laptop")
        machine.commands["nvidia-smi --query-gpu=enforced.power.limit"] = "350.00\n65.50\n"
        cards = known(inventory.inventory(machine))["accelerators"]
        self.assertEqual([card["power_limit_w"] for card in cards], [350.0, 65.5])

    def test_divided_cards_have_the_memory_of_one_instance(self) -> None:
        instance = ("<mig_device><fb_memory_usage>\n<total>{} MiB</total><used>1 MiB</used>"
                    "</fb_memory_usage><bar1_memory_usage><total>9 MiB</total></bar1_memory_usage>"
                    "</mig_device>").format
        whole = '<gpu id="1"><fb_memory_usage><total>81920 MiB</total></fb_memory_usage>{}</gpu>'
        for instances, size, reason in (
                ("<mig_devices>None</mig_devices>", 81920, None),
                (instance(9856) + instance(9856), 9856, None),
                (instance(9856) + instance(19968), None, str(gpus.UNEQUAL))):
            with self.subTest(instances):
                machine = RecordedMachine("nvidia_mig_a800")
                machine.commands["nvidia-smi --query-gpu=mig.mode.current"] = "Enabled\n"
                machine.commands["nvidia-smi -q -x"] = whole.format(instances)
                found = inventory.inventory(machine)["accelerators"][0]["memory_bytes"]
                self.assertEqual((found["value"], found["reason"]),
                                 (size and size * system.MIB, reason))

    def test_amd_names_are_matched_by_bus_address(self) -> None:
        machine = RecordedMachine("linux_rx7900xtx_with_igpu")
        machine.commands["rocm-smi --showproductname --json"] = json.dumps({
            "card0": {"Card Series": "One"}, "card1": {"Card Series": "Two"}})
        machine.commands["rocm-smi --showbus --json"] = json.dumps({
            "card0": {"PCI Bus": "0000:0F:00.0"}, "card1": {"PCI Bus": "0000:03:00.0"}})
        cards = known(inventory.inventory(machine))["accelerators"]
        self.assertEqual([card["model_name"] for card in cards], ["Two", "One"])

    def test_exact_amd_name_by_device_and_revision(self) -> None:
        machine = RecordedMachine("linux_rx7900xt")
        machine.commands.clear()
        machine.files["/sys/class/drm/card0/device/revision"] = "0xcc\n"
        machine.files["/usr/share/libdrm/amdgpu.ids"] = (
            "744C,\tC8,\tAMD Radeon RX 7900 XTX\n744C,\tCC,\tAMD Radeon RX 7900 XT\n")
        cards = known(inventory.inventory(machine))["accelerators"]
        self.assertEqual(cards[0]["model_name"], "AMD Radeon RX 7900 XT")

    def test_number_of_cards_is_unknown_while_nvidias_driver_fails(self) -> None:
        machine = RecordedMachine("linux_arc_b60_b580")
        machine.commands["nvidia-smi"] = ("NVIDIA-SMI has failed because it couldn't communicate "
                                          "with the NVIDIA driver.\n")
        found = inventory.inventory(machine)
        self.assertEqual(len(found["accelerators"]), 2)
        self.assertEqual(found["accelerators_count"], {
            "value": None, "source": None, "reason": "a driver does not list its card"})
        self.assertIsNone(found["memory"]["unified"]["value"])
        self.assertEqual(faults(found), [])

    def test_link_of_a_card_with_its_own_switch_is_that_of_its_slot(self) -> None:
        # nokyan/resources 512 (RX 9060 XT) and Syllo/nvtop 344 (Arc A770)
        for vendor, inner, outer, right in (
                ("0x1002", ("32.0 GT/s PCIe", "16"), ("16.0 GT/s PCIe", "8"), (4, 8)),
                ("0x8086", ("2.5 GT/s PCIe", "1"), ("16.0 GT/s PCIe", "16"), (4, 16))):
            for above, expected in ((vendor, right), ("0x1022", (
                    gpus.pcie_generation(inner[0]), int(inner[1])))):
                machine = RecordedMachine("linux_wsl2")
                folder = "/sys/class/drm/card1/device"
                machine.files = {
                    f"{folder}/vendor": vendor, f"{folder}/device": "0x7590",
                    f"{folder}/../vendor": above, f"{folder}/../../vendor": above}
                for up, link in (("", inner), ("/../..", outer)):
                    for file, value in zip(("speed", "width"), link):
                        machine.files[f"{folder}{up}/current_link_{file}"] = value
                card = gpus.drm_card(machine, folder)
                self.assertEqual((card["pcie_generation_current"], card["pcie_lanes_current"]),
                                 expected)

    def test_intel_cards_report_their_memory(self) -> None:
        machine = RecordedMachine("linux_arc_b60_b580")
        machine.files["/sys/class/drm/card0/device/tile0/physical_vram_size_bytes"] = "25669140480"
        machine.files["/sys/class/drm/card1/lmem_total_bytes"] = "12884901888"
        cards = known(inventory.inventory(machine))["accelerators"]
        self.assertEqual([card["memory_bytes"] for card in cards], [25669140480, 12884901888])

    def test_container_counts_cores_that_it_may_use(self) -> None:
        machine = RecordedMachine("linux_proxmox_lxc_epyc")
        folder = "/sys/devices/system/cpu/cpu"
        for cpu in (*range(8, 12), *range(264, 268)):              # two threads of four cores
            machine.files[f"{folder}{cpu}/topology/core_id"] = str(cpu % 256)
            machine.files[f"{folder}{cpu}/topology/physical_package_id"] = "0"
        with mock.patch.object(machine, "affinity",
                               lambda: {*range(8, 12), *range(264, 268)}):
            self.assertEqual(known(inventory.inventory(machine))["cpu"]["physical_cores_count"], 4)
        machine.files.update({"/proc/self/cgroup": "0::/.lxc\n",
                              "/sys/fs/cgroup/cpuset.cpus.effective": "8-11,264-267\n"})
        self.assertEqual(known(inventory.inventory(machine))["cpu"]["physical_cores_count"], 4)

    def test_modules_are_read_from_udev_of_systemd_before_250(self) -> None:
        machine = RecordedMachine("linux_ryzen_7950x")
        answer = machine.commands.pop("udevadm info")
        machine.commands.update({
            "udevadm info --query=property --path=/devices/virtual/dmi/id --property": "",
            "udevadm info --query=property --path=/devices/virtual/dmi/id":
                "MEMORY_DEVICE_1_SERIAL_NUMBER=EXAMPLE-SERIAL\n" + answer})
        found = inventory.inventory(machine)
        self.assertEqual(known(found)["memory"]["type"], "DDR5")
        self.assertNotIn("EXAMPLE-SERIAL", json.dumps(found))

    def test_arm_cores_without_lscpu(self) -> None:
        machine = RecordedMachine("linux_gb10_dgx_spark")
        del machine.commands["lscpu"]
        found = known(inventory.inventory(machine))["cpu"]
        self.assertEqual((found["model_name"], found["vendor"]),
                         ("Cortex-A725 + Cortex-X925", "ARM"))

    def test_windows_registry_and_adapter_sizes(self) -> None:
        cases = (([0, 0, 0, 0, 4, 0, 0, 0], 0x7ffff000, 2**34), ("8589934592", None, 2**33),
                 (None, 1073741824, 2**30), (None, 2147479552, None), (None, 4293918720, None))
        for registry, adapter, size in cases:
            cards = windows.cards({
                "gpu": [{"Name": "Intel Arc A770", "AdapterRAM": adapter}],
                "gpu_memory": [{"DriverDesc": "Intel Arc A770",
                                "HardwareInformation.qwMemorySize": registry}]}, [])
            self.assertEqual(cards[0]["memory_bytes"], size, registry)

    def test_windows_answer_may_begin_with_a_byte_order_mark(self) -> None:
        machine = RecordedMachine("windows_zh_cn")
        start = next(iter(machine.commands))
        machine.commands[start] = "\ufeff" + machine.commands[start]
        self.assertEqual(known(inventory.inventory(machine))["system"]["model_name"], "LENOVO 82XV")

    def test_lenovo_and_self_built_machines_by_family_and_board(self) -> None:
        name = windows.system_section(
            {"Manufacturer": "LENOVO", "Model": "82XV", "SystemFamily": "Legion 5 16IRX8"}, {})
        self.assertEqual(name["model_name"], "LENOVO Legion 5 16IRX8")
        name = windows.system_section({"Manufacturer": "System manufacturer",
                                       "Model": "System Product Name"},
                                      {"Manufacturer": "ASUSTeK", "Product": "PRIME B650"})
        self.assertEqual(name["model_name"], "ASUSTeK PRIME B650")

    def test_power_source_and_mode_of_macs(self) -> None:
        for text, source in (("AC", "ac"), ("Battery", "battery"), ("UPS", "battery"), ("X", None)):
            self.assertEqual(macos.parse_pmset_source(f"Now drawing from '{text} Power'"), source)
        both = " lowpowermode         0\n powermode            2\n"
        self.assertEqual(macos.parse_pmset_mode(both), "high_power")

    def test_core_kinds_of_apple_chips_by_name(self) -> None:
        def kinds(*names: str) -> tuple[Any, Any]:
            values = {"hw.nperflevels": str(len(names))}
            for level, name in enumerate(names):
                values[f"hw.perflevel{level}.physicalcpu"] = str(level + 4)
                values.update({f"hw.perflevel{level}.name": name} if name else {})
            found = macos.core_kinds(values)
            return found.get("performance_cores_count"), found.get("efficiency_cores_count")

        self.assertEqual(kinds("Performance", "Efficiency"), (4, 5))
        self.assertEqual(kinds("", ""), (4, 5))
        self.assertEqual(kinds("Super", "Efficiency"), (4, 5))
        self.assertEqual(kinds("Super", "Performance", "Efficiency"), (5, 6))
        self.assertEqual(kinds("Standard"), (None, None))
        self.assertEqual(kinds("Super", "Performance")[0], 5)

    def test_broken_nvidia_driver_does_not_hide_other_cards(self) -> None:
        machine = RecordedMachine("nvidia_error_text")
        for card, vendor in (("card0", "0x1002"), ("card1", "0x10de")):
            machine.files[f"/sys/class/drm/{card}/device/vendor"] = vendor
            machine.files[f"/sys/class/drm/{card}/device/device"] = "0x744c"
        cards = known(inventory.inventory(machine))["accelerators"]
        self.assertEqual([card["vendor"] for card in cards], ["AMD", "NVIDIA"])

    def test_name_of_a_custom_power_plan_is_not_read(self) -> None:
        line = "Power Scheme GUID: 12345678-1234-1234-1234-123456789abc  (Anna plays)"
        self.assertEqual(windows.parse_power_scheme(line), "custom")
        self.assertEqual(windows.parse_power_scheme(None), None)

    def test_guest_time_counts_once_and_waiting_is_idle(self) -> None:
        line = "cpu  100 5 50 800 45 2 3 10 60 4\ncpu0 1 1\n"
        self.assertEqual(linux.parse_proc_stat(line),
                         system.CpuTimes(busy=170, total=1015))

    def test_process_name_may_contain_parentheses(self) -> None:
        line = "42 (a) S 1 (x) R 7 42 42 0 -1 4194560 10 0 0 0 250 50 9 9 20 0 4 0 100 0 0"
        self.assertEqual(processes.parse_process_stat(line), processes.Process(7, 300, "a) S 1 (x"))
        self.assertEqual(processes.parse_process_stat("42 (a) S 1"), None)

    def test_energy_counter_that_restarts(self) -> None:
        before, after = {"a": (990, 1000), "b": (5, 9)}, {"a": (20, 1000)}
        self.assertEqual(linux.energy_between(before, after), 30)

    def bandwidth(self, took_s: list[float], cpu_s: float) -> float:
        """The bandwidth of rounds that take so long and use so much processor time each."""
        clock = iter([moment for before in took_s for moment in (100.0, 100.0 + before)])
        cpu = iter([at * cpu_s for at in range(99)])
        with mock.patch.object(system, "COPY_ROUND_S", 0.01), \
                mock.patch("time.perf_counter", lambda: next(clock)), \
                mock.patch("time.process_time", lambda: next(cpu)):
            return system.copy_bandwidth_gb_per_s(2, 10_000_000)

    def test_bandwidth_counts_bytes_read_and_written_in_the_best_round(self) -> None:
        self.assertEqual(self.bandwidth([0.01] * 26, 0.02), 2.0)
        self.assertEqual(self.bandwidth([0.01, *[0.04] * 24, 0.01], 0.02), 2.0)

    def test_bandwidth_is_unknown_if_other_programs_use_the_processors(self) -> None:
        with self.assertRaises(RuntimeError):
            self.bandwidth([0.01] * 26, 0.009)
        with mock.patch.object(system, "copy_bandwidth_gb_per_s", side_effect=RuntimeError):
            self.assertIsNone(system.Machine().copy_bandwidth())

    def test_core_kinds_by_capacity(self) -> None:
        machine = RecordedMachine("linux_raspberry_pi")
        folder = "/sys/devices/system/cpu/cpu"
        machine.files["/proc/cpuinfo"] = "".join(f"processor\t: {cpu}\n" for cpu in range(7))
        for cpu, capacity in enumerate((530, 530, 530, 530, 900, 900, 1024)):
            machine.files.update({
                f"{folder}{cpu}/cpu_capacity": str(capacity), f"{folder}{cpu}/topology/core_id":
                str(cpu), f"{folder}{cpu}/topology/physical_package_id": "0"})
        found = known(inventory.inventory(machine))["cpu"]
        self.assertEqual((found["performance_cores_count"], found["efficiency_cores_count"]),
                         (3, 4))

    def test_memory_limit_above_the_capacity_is_none(self) -> None:
        machine = RecordedMachine("linux_container_cgroup2")
        machine.files["/sys/fs/cgroup/memory.max"] = "99000000000"
        self.assertNotIn("limit_bytes", known(inventory.inventory(machine))["memory"])


LISTENING = "  sl  local_address\n   0: 0100007F:2CAA 00000000:0000 0A 0:0 0:0 0 {user} 0 777 1 0\n"


def stat(parent: int, ticks: int, name: str = "x") -> str:
    return f"1 ({name}) S {parent} 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0 20 0 4 0 100 0 250"


def with_processes(user: int, name: str = "llama-server", readable: bool = True) -> RecordedMachine:
    """A laptop with a server (70) on port 11434, its child (71) and another program (80)."""
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
    """Set the ticks used by processes and by the whole machine."""
    machine.files["/proc/stat"] = f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n"
    for pid, used in ticks.items():
        text = machine.files.get(f"/proc/{pid}/stat", stat(71, 0))
        parent = processes.parse_process_stat(text)
        assert parent is not None
        machine.files[f"/proc/{pid}/stat"] = stat(parent.parent, used, parent.command)


class Server(unittest.TestCase):
    def find(self, machine: RecordedMachine) -> set[int]:
        listed = processes.list_processes(machine)
        return set(processes.find_server(machine, listed, 11434))

    def test_server_is_the_process_with_the_listening_socket(self) -> None:
        self.assertEqual(self.find(with_processes(user=1000)), {70})

    def test_server_by_its_own_service_user(self) -> None:
        self.assertEqual(self.find(with_processes(user=998, readable=False)), {70, 71})

    def test_unreadable_server_of_root_is_unknown(self) -> None:
        self.assertEqual(self.find(with_processes(user=0, readable=False)), set())

    def test_forwarder_is_not_the_server(self) -> None:
        self.assertEqual(self.find(with_processes(user=0, name="docker-proxy")), set())

    def test_other_port_has_no_server(self) -> None:
        machine = with_processes(user=1000)
        listed = processes.list_processes(machine)
        self.assertEqual(processes.find_server(machine, listed, 11435), frozenset())


class Samples(unittest.TestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.start(mock.patch.object(system, "GAUGE_SHARE", 1e12))     # no pauses
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
            "swap_used_bytes": 268697600, "server_memory_bytes": 3 * 250 * processes.PAGE_BYTES,
            "cpu_mhz": 4200.0, "cpu_throttle_count": 17,
            "cpu_busy_ratio": 0.6, "other_cpu_busy_ratio": 0.152,
            "power_source": "battery", "temperature_c": 71.0, "energy_uj": 4000999,
            "gpus": [{"index": 0, "busy_ratio": 0.97, "memory_used_bytes": 3753902080,
                      "power_w": 24.61, "temperature_c": 83.0, "clock_mhz": 1402.0,
                      "throttled": True}]})
        sampler.close()
        sampler.close()
        self.assertEqual(machine.watches[0].closed, 1)
        self.assertIn("clocks_throttle_reasons.active --format=csv,noheader,nounits -l 5",
                      machine.asked[-1])

    def test_an_engine_that_ended_since_the_last_sample(self) -> None:
        """Not the small parts of a server, and not an engine that has been replaced since."""
        machine = with_processes(user=1000)
        machine.files["/proc/70/stat"] = stat(1, 0).replace(" 250", " 90")
        machine.files["/proc/72/stat"] = stat(70, 0).replace(" 250", " 30")
        use(machine, {}, busy=1000, idle=9000)
        sampler, lost = gauges.Sampler(11434, machine), []
        for pid, left in ((80, None), (72, None), (71, stat(70, 0).replace(" 250", " 0")),
                          (71, None)):
            before = machine.files.pop(f"/proc/{pid}/stat")
            if left:
                machine.files[f"/proc/{pid}/stat"] = left
            lost.append(sampler.server_lost_processes())
            machine.files[f"/proc/{pid}/stat"] = before
        del machine.files["/proc/71/stat"]
        machine.files["/proc/73/stat"] = stat(70, 0)
        lost += [sampler.server_lost_processes(), sampler.sample()["load_1m"],
                 sampler.server_lost_processes()]
        for pid, children in ((70, "73 74"), (73, ""), (74, "")):
            machine.files[f"/proc/{pid}/task/{pid}/children"] = children
        machine.files["/proc/74/stat"] = stat(70, 0)        # started after the sample
        sampler.note_server_processes()
        del machine.files["/proc/74/stat"]
        lost.append(sampler.server_lost_processes())
        self.assertEqual(lost, [False, False, True, True, True, 1.24, False, True])
        self.assertFalse(gauges.Sampler(None, machine).server_lost_processes())

    def test_children_listed_by_the_kernel_give_the_same_shares(self) -> None:
        machine = with_processes(user=1000)
        for pid, children in ((os.getpid(), ""), (70, "71 72"), (71, ""), (72, "")):
            machine.files[f"/proc/{pid}/task/{pid}/children"] = children
        use(machine, {}, busy=1000, idle=9000)
        sampler = gauges.Sampler(11434, machine)
        use(machine, {os.getpid(): 100, 70: 50, 71: 150, 72: 150, 80: 140}, busy=1600, idle=9400)
        self.assertEqual(set(processes.family(machine, {os.getpid(), 70}) or ()),
                         {os.getpid(), 70, 71, 72})
        found = sampler.sample()
        self.assertEqual((found["other_cpu_busy_ratio"], found["server_memory_bytes"]),
                         (0.152, 3 * 250 * processes.PAGE_BYTES))

    def test_last_sample_reads_gauges_that_are_not_due(self) -> None:
        machine = with_processes(user=1000)
        use(machine, {}, busy=1000, idle=9000)
        with mock.patch.object(system, "GAUGE_SHARE", 1e-12):
            sampler = gauges.Sampler(11434, machine)
            use(machine, {80: 140}, busy=1600, idle=9400)
            found = [sampler.sample(whole)["other_cpu_busy_ratio"] for whole in (False, True)]
        self.assertEqual((found[0], found[1] is None), (None, False))

    def test_power_limit_is_recorded_at_the_start_and_where_it_changes(self) -> None:
        machine = RecordedMachine("linux_laptop")
        sampler = gauges.Sampler(machine=machine)
        line = "0, 97, 3580, 24.61, 83, 1402, {}, 0x0"
        found = []
        for limit in (450, 450, 300):
            with mock.patch.object(sampler._nvidia, "lines",
                                   return_value=[line.format(limit)]):
                found.append(sampler.sample()["gpus"][0].get("power_limit_w"))
        self.assertEqual(found, [450.0, None, 300.0])

    def test_without_a_port_other_programs_are_unknown(self) -> None:
        machine = with_processes(user=1000)
        sampler = gauges.Sampler(None, machine)
        use(machine, {80: 500}, busy=2000, idle=9400)
        self.assertEqual(sampler.sample()["other_cpu_busy_ratio"], None)

    def test_a_desktop_with_an_amd_card(self) -> None:
        found = gauges.Sampler(machine=RecordedMachine("linux_amd_desktop")).sample()
        self.assertEqual(found["gpus"], [{
            "index": 0, "busy_ratio": 0.98, "memory_used_bytes": 21474836480, "power_w": 312.0,
            "temperature_c": 64.0, "clock_mhz": 2482.0, "throttled": None}])

    def test_integrated_amd_graphics_use_memory_through_gtt(self) -> None:
        machine = RecordedMachine("linux_strix_halo_framework")
        folder = "/sys/class/drm/card1/device"
        machine.files.update({f"{folder}/mem_info_vram_used": "400000000",
                              f"{folder}/mem_info_gtt_used": "60000000000"})
        found = gauges.Sampler(machine=machine).sample()
        self.assertEqual(found["gpus"][0]["memory_used_bytes"], 60_400_000_000)

    def test_power_of_an_intel_card_from_its_energy(self) -> None:
        machine = RecordedMachine("linux_arc_b60_b580")
        clock = iter(range(100))
        with mock.patch("time.monotonic", lambda: 10.0 * next(clock)):
            sampler = gauges.Sampler(machine=machine)
            before_s = sampler._card_energy["/sys/class/drm/card0/device"][1]
            machine.files["/sys/class/drm/card0/device/hwmon/hwmon7/energy1_input"] = "1123456789"
            card = sampler.sample()["gpus"][0]
            after_s = sampler._card_energy["/sys/class/drm/card0/device"][1]
        self.assertEqual((card["index"], card["power_w"]),
                         (0, round(1000 / (after_s - before_s), 3)))

    def test_a_raspberry_pi(self) -> None:
        found = gauges.Sampler(machine=RecordedMachine("linux_raspberry_pi")).sample()
        self.assertEqual((found["cpu_mhz"], found["temperature_c"], found["power_source"]),
                         (1500.0, 48.8, None))

    def test_a_mac(self) -> None:
        self.assertEqual(gauges.Sampler(11434, RecordedMachine("mac_m1")).sample(), {
            "load_1m": 1.24, "memory_used_bytes": 6738542592, "memory_available_bytes": 1851392000,
            "swap_used_bytes": 1272184832, "server_memory_bytes": None,
            "cpu_mhz": None, "cpu_throttle_count": None,
            "cpu_busy_ratio": 0.468, "other_cpu_busy_ratio": None,
            "power_source": "battery", "temperature_c": None, "energy_uj": None,
            "gpus": [{"index": 0, "busy_ratio": 0.91, "memory_used_bytes": 2147483648,
                      "power_w": None, "temperature_c": None, "clock_mhz": None,
                      "throttled": None}]})

    def test_windows(self) -> None:
        machine = RecordedMachine("windows_desktop")
        sampler = gauges.Sampler(11434, machine)
        later = dict(machine.windows_gauges(), cpu_times=system.windows_cpu_times(775, 900, 200))
        with mock.patch.object(machine, "windows_gauges", lambda: later):
            found = sampler.sample()
        self.assertEqual({name: value for name, value in found.items() if value is not None}, {
            "load_1m": 1.24, "memory_used_bytes": 600, "memory_available_bytes": 400,
            "cpu_busy_ratio": 0.248, "power_source": "ac", "gpus": []})

    def test_power_limit_alone_is_not_throttling(self) -> None:
        lines = ["1, [N/A], [N/A], [N/A], 40, 300, 70, 0x0000000000000004", "0, 1, 2, 3, 4, 5, 6",
                 "NVIDIA-SMI has failed"]
        self.assertEqual(
            [(card["index"], card["busy_ratio"], card["throttled"])
             for card in gpus.parse_nvidia_gauges(lines)], [(0, 0.01, None), (1, None, False)])

    def test_expensive_gauge_is_sampled_less_often(self) -> None:
        sampler = gauges.Sampler(machine=RecordedMachine("linux_wsl2"))
        now_s = iter((100.0, 100.2, 110.0, 121.0, 121.0))
        used_s = iter((3.0, 3.2, 4.0, 4.0))
        with mock.patch.object(system, "GAUGE_SHARE", 0.01), \
                mock.patch("time.monotonic", lambda: next(now_s)):
            self.assertEqual([sampler._safely("slow", lambda: 7, lambda: next(used_s))
                              for _ in range(3)], [7, None, 7])

    def test_gauge_that_waits_for_a_processor_is_not_expensive(self) -> None:
        sampler = gauges.Sampler(machine=RecordedMachine("linux_wsl2"))
        now_s = iter((100.0, 100.1, 101.0, 101.1))
        with mock.patch.object(system, "GAUGE_SHARE", 0.01), \
                mock.patch("time.monotonic", lambda: next(now_s)):
            self.assertEqual([sampler._safely("waits", lambda: time.sleep(0.05) or 7)
                              for _ in range(2)], [7, 7])

    @unittest.skipUnless(platform.system() == "Linux", "reads this machine as Linux reports it")
    def test_sampling_this_machine_is_cheap_and_silent(self) -> None:
        def cost_s() -> float:
            sampler = gauges.Sampler(1)
            began_s = os.times()
            found = sampler.sample()
            ended_s = os.times()
            sampler.close()
            self.assertGreater(found["memory_available_bytes"], 0)
            return sum(ended_s[:4]) - sum(began_s[:4])

        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            least_s = min(cost_s() for _ in range(4))       # other programs only add to it
        self.assertEqual(out.getvalue(), "")
        self.assertLess(least_s, 0.5)     # about 0.03 s on an idle machine, more on a busy one


class Children(unittest.TestCase):
    def test_latest_line_per_card_until_stale(self) -> None:
        watch = system.Watch([sys.executable, "-c", "print('0, 1\\n1, 5\\n0, 2')"])
        watch._thread.join(10)
        self.assertEqual(sorted(watch.lines()), ["0, 2", "1, 5"])
        self.assertEqual((watch.lines(skip=2) != [], watch.lines(skip=3)), (True, []))
        with mock.patch.object(system, "STALE_AFTER_S", -1):
            self.assertEqual(watch.lines(), [])
        watch.close()

    def test_close_ends_the_child(self) -> None:
        watch = system.Watch([sys.executable, "-c", "import time; time.sleep(60)"])
        watch.close()
        self.assertIsNotNone(watch._child.returncode)

    def test_missing_command_is_null(self) -> None:
        self.assertEqual((system.Machine().run(["no-such-command-here"]),
                          system.Machine().watch(["no-such-command-here"])), (None, None))

    def test_hanging_command_is_null(self) -> None:
        argv = [sys.executable, "-c", "import time; time.sleep(60)"]
        self.assertEqual(system.Machine().run(argv, 0.05), None)


class Command(unittest.TestCase):
    def run_main(self, *argv: str) -> tuple[int, str]:
        out, made = io.StringIO(), inventory.inventory(RecordedMachine("linux_laptop"))
        with mock.patch.object(inventory, "inventory", lambda measure: made), \
                mock.patch.object(hardware, "busy_now", lambda sampler: 0.12), \
                contextlib.redirect_stdout(out):
            return hardware.main(argv), out.getvalue()

    def test_json_prints_the_inventory(self) -> None:
        code, text = self.run_main("--json")
        self.assertEqual((code, json.loads(text)),
                         (0, inventory.inventory(RecordedMachine("linux_laptop"))))

    def test_table_shows_values_and_reasons(self) -> None:
        code, text = self.run_main()
        table, _, last = text.strip().rpartition("\n\n")
        rows = dict(line.split("  ", 1) for line in table.splitlines())
        shown = {name: rows[name].strip() for name in (
            "system.kind", "memory.capacity_bytes", "memory.limit_bytes",
            "accelerators[0].model_name", "cpu.instruction_sets")}
        self.assertEqual((code, shown), (0, {
            "system.kind": "laptop", "memory.capacity_bytes": "15.3 GiB",
            "memory.limit_bytes": "(no limit below the capacity is set)",
            "accelerators[0].model_name": "NVIDIA RTX A500 Laptop GPU",
            "cpu.instruction_sets": "avx avx2 avx_vnni f16c fma"}))
        self.assertRegex(last, r"\Aprocessors in use now: 12%\n.*connect mains power")

    def test_busy_now_covers_the_last_second(self) -> None:
        for ratio in (0.975, 0.0, None):
            sampler, paused = mock.Mock(), []
            sampler.sample.return_value = {"cpu_busy_ratio": ratio}
            with self.subTest(ratio=ratio):
                self.assertEqual(hardware.busy_now(sampler, paused.append), ratio)
                self.assertEqual((paused, sampler.close.call_count), ([gauges.BUSY_LOOK_S], 1))

    def test_load_and_battery_come_with_advice(self) -> None:
        for busy, power, wishes in ((0.25, "ac", ""), (None, None, ""), (0.26, None, "close"),
                                    (0.0, "battery", "connect"), (0.9, "battery", "close connect")):
            line, *advice = hardware.before_a_run(busy, power)
            with self.subTest(busy=busy, power=power):
                self.assertIn("unknown" if busy is None else f"{busy:.0%}", line)
                self.assertEqual([word for word in ("close", "connect") if word in
                                  " ".join(advice)], wishes.split())

    def test_unknown_option_exits_with_2(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
            hardware.main(["--declare"])
        self.assertEqual(caught.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
