"""Test how the server of a port is found, and what of its command line is published."""

from __future__ import annotations

import json
import shlex
import tempfile
import unittest
from pathlib import Path
from typing import Optional

from core import privacy
from machine import gguf, server_process, system
from machine.server_process import Started
from tests import documents
from tests.machine import test_gguf
from tests.machine.test_machine import RecordedMachine

PORT = 8080
LLAMA = ("llama-server -m /home/sam/models/qwen3-4b-Q4_K_M.gguf -c 16384 -np 4 -t 8 -ngl 99 "
         "--host 192.168.1.23 --api-key sk-12345 --alias fast")
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 777 1
   1: 0100007F:1F90 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000        0 778 1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 779 1
"""


def linux(command: str = LLAMA) -> RecordedMachine:
    """Process 12 listens on PORT; others do not, or cannot be read."""
    machine = RecordedMachine("linux_laptop")
    machine.files.update({f"/proc/{pid}/stat": f"{pid} ({name}) S 1 " + "0 " * 20
                          for pid, name in ((7, "init"), (9, "client"), (12, "server"))})
    machine.files.update({
        "/proc/net/tcp": TABLE, "/proc/self/status": "", "/proc/9/cmdline": "client\0-x\0",
        "/proc/12/cmdline": "\0".join(shlex.split(command)) + "\0"})
    machine.owners.update({"/proc/7": 0, "/proc/9": 1000, "/proc/12": 1000})
    machine.links.update({"/proc/9/fd/3": "socket:[778]", "/proc/12/fd/0": "/dev/null",
                          "/proc/12/fd/3": "socket:[777]"})
    return machine


def mac(command: str = LLAMA) -> RecordedMachine:
    machine = RecordedMachine("mac_m1")
    machine.commands.update({f"lsof -nP -iTCP:{PORT} -sTCP:LISTEN -Fp": "p412\nf11\n",
                             "ps -ww -o command= -p 412": command + "\n"})
    return machine


def windows(expected: Optional[str]) -> RecordedMachine:
    machine = RecordedMachine("windows_desktop")
    machine.commands = {} if expected is None else {"powershell": expected}
    return machine


def words(machine: RecordedMachine) -> Optional[list[str]]:
    found = server_process.find(machine, PORT)
    return found and found.words


class Find(unittest.TestCase):
    def test_process_by_its_socket(self):
        self.assertEqual(words(linux()), shlex.split(LLAMA))

    def test_paths_with_blanks_are_words_on_a_mac(self):
        program, model = "/Volumes/My Disk/llama-server", "/Users/sam/Application Support/m.gguf"
        machine = mac(f"{program} -m {model} -c 4096 --flag /no such/path")
        machine.owners.update(dict.fromkeys(("/Volumes/My", program, model), 501))
        self.assertEqual(words(machine), [
            program, "-m", model, "-c", "4096", "--flag", "/no such/path"])
        self.assertEqual(server_process.started(machine, PORT, "llama.cpp", ()), Started(
            "llama-server -m m.gguf -c 4096 --flag ...",
            {"launch_flags": "-c 4096", "models.0.file_name": "m.gguf"}))

    def test_socket_of_both_families(self):
        machine = linux()
        machine.files["/proc/net/tcp6"] = machine.files.pop("/proc/net/tcp").replace(
            "0100007F", "00000000000000000000000000000000")
        self.assertEqual(words(machine), shlex.split(LLAMA))

    def test_unknown_is_null(self):
        unreadable = linux()
        unreadable.links.clear()
        other = linux()
        other.system = "FreeBSD"
        for machine, port in ((linux(), 8081), (unreadable, PORT), (other, PORT),
                              (RecordedMachine("mac_m1"), PORT), (windows(None), PORT),
                              (windows(""), PORT), (windows("[1, 2]"), PORT),
                              (windows('{"CommandLine": null}'), PORT)):
            with self.subTest(system=machine.system, port=port):
                self.assertIsNone(server_process.started(machine, port, "llama.cpp", ()))

    def test_reason_names_the_process_if_it_is_known(self):
        hidden, forwarder = linux("x --port 8080"), linux()
        hidden.links.clear()
        forwarder.files["/proc/12/stat"] = "12 (docker-proxy) S 1 " + "0 " * 20
        other = linux()
        other.system = "FreeBSD"
        for machine, port, words in (
                (hidden, PORT, "another user; its process ID may be 12: ps -o args= -p 12"),
                (forwarder, PORT, "process 12 (docker-proxy)"), (linux(), 8081, "listens on port "),
                (other, PORT, "no process that you may look at")):
            with self.subTest(words):
                self.assertIn(words, server_process.why_unknown(machine, port))

    def test_unreadable_server_by_its_own_user(self):
        machine = linux()
        machine.links.clear()
        machine.owners["/proc/9"] = 0
        self.assertEqual(words(machine), shlex.split(LLAMA))

    def test_first_of_several_processes_with_the_socket(self):
        machine = linux()
        machine.files["/proc/14/stat"] = machine.files["/proc/12/stat"]
        machine.files["/proc/14/cmdline"] = "worker\0"
        machine.owners["/proc/14"] = 1000
        machine.links["/proc/14/fd/5"] = "socket:[777]"
        self.assertEqual(words(machine), shlex.split(LLAMA))

    def test_macos_uses_lsof_and_ps(self):
        self.assertEqual(words(mac()), LLAMA.split())

    def test_windows_uses_powershell(self):
        expected = json.dumps({"CommandLine": r'"C:\Program Files\llama\llama-server.exe" '
                                          r"-m D:\x.gguf -t 8"})
        self.assertEqual(server_process.started(windows(expected), PORT, "llama.cpp", ()), Started(
            "llama-server.exe -m x.gguf -t 8",
            {"launch_flags": "-t 8", "runtime.threads_count": "8",
             "models.0.file_name": "x.gguf"}))


class Settings(unittest.TestCase):
    maxDiff = None

    def started(self, command: str, engine: Optional[str] = "llama.cpp",
                names: tuple[privacy.MachineName, ...] = ()) -> Optional[Started]:
        return server_process.started(linux(command), PORT, engine, names)

    def test_options_without_folders_addresses_and_keys(self):
        self.assertEqual(self.started(LLAMA), Started(
            "llama-server -m qwen3-4b-Q4_K_M.gguf -c 16384 -np 4 -t 8 -ngl 99 --host ... "
            "--api-key ... --alias ...",
            {"launch_flags": "-c 16384 -np 4 -t 8 -ngl 99", "runtime.threads_count": "8",
             "models.0.file_name": "qwen3-4b-Q4_K_M.gguf"}))

    def test_llama_cpp_settings(self):
        found = self.started("llama-server -fa on -b 4096 --ubatch-size=1024 -ctk q8_0 -ctv q4_0 "
                             "-md /m/small.gguf --jinja")
        self.assertEqual(found.settings, {
            "launch_flags": "-fa on -b 4096 --ubatch-size 1024 -ctk q8_0 -ctv q4_0 "
                            "-md small.gguf --jinja",
            "runtime.flash_attention": "on", "runtime.batch_tokens": "4096",
            "runtime.micro_batch_tokens": "1024", "runtime.kv_cache_type": "q8_0/q4_0",
            "models.0.draft_model": "small.gguf"})

    def test_cache_types_of_keys_and_values(self):
        for flags, kind in (("-ctk q8_0 -ctv q8_0", "q8_0"), ("--cache-type-k q8_0", "q8_0/f16")):
            self.assertEqual(self.started("llama-server " + flags).settings, {
                "launch_flags": flags, "runtime.kv_cache_type": kind})

    def test_file_name_has_no_folder(self):
        for path in ("m.gguf", "models/m.gguf", "./a/b/m.gguf", "/srv/m.gguf"):
            self.assertEqual(self.started(f"llama-server -m {path}").settings[
                "models.0.file_name"], "m.gguf")

    def test_names_of_hosts_and_people_are_left_out(self):
        for words in ("--rpc betelgeuse:50052", "--remote gpu07.corp-x.net:9", "--user zaphod",
                      "--override-kv x=str:Zaphod", "--dist-init-addr=betelgeuse:5000",
                      '--config-json {"owner": "zaphod"}', "--node betelgeuse"):
            with self.subTest(words):
                found = self.started(f"llama-server -t 8 {shlex.quote(words.split(' ', 1)[0])} "
                                     + " ".join(map(shlex.quote, words.split(" ", 1)[1:])))
                self.assertEqual(found.settings["launch_flags"], "-t 8")
        kept = "-sm layer --numa distribute -ts 3,1 -dev CUDA0 --attention-backend FLASHINFER"
        self.assertEqual(self.started("llama-server " + kept).settings["launch_flags"], kept)

    def test_short_options_of_another_engine_are_not_read(self):
        self.assertEqual(self.started("other -t 8 -ctk q8_0", "unknown").settings,
                         {"launch_flags": "-t 8 -ctk q8_0"})

    def test_vllm_settings(self):
        self.assertEqual(self.started("python3 /usr/bin/vllm serve Qwen/Qwen3-8B "
                                      "--max-model-len=4096 --api-key=sk-1 --kv-cache-dtype fp8 "
                                      "--max-num-batched-tokens 2048", "vLLM"), Started(
            "python3 vllm serve Qwen/Qwen3-8B --max-model-len=4096 --api-key=... "
            "--kv-cache-dtype fp8 --max-num-batched-tokens 2048",
            {"launch_flags": "--max-model-len 4096 --kv-cache-dtype fp8 "
                             "--max-num-batched-tokens 2048",
             "runtime.kv_cache_type": "fp8", "runtime.batch_tokens": "2048",
             "models.0.source_repository": "Qwen/Qwen3-8B"}))

    def test_version_of_an_engine_in_python_from_its_environment(self):
        with tempfile.TemporaryDirectory() as top:
            python = Path(top, "bin", "python3")
            python.parent.mkdir()
            python.touch(0o755)
            for folder in ("mlx_lm-0.32.2.dist-info", "mlx-0.31.0.dist-info", "mlx_lm"):
                Path(top, "lib", "python3.11", "site-packages", folder).mkdir(parents=True)
            command = shlex.join([str(python), "-m", "mlx_lm", "server"])
            by_path = linux("python3 -m mlx_lm server")
            by_path.files["/proc/12/environ"] = f"PATH={python.parent}\0"
            for machine, engine, version in (
                    (linux(command), "mlx-lm", "0.32.2"), (by_path, "mlx-lm", "0.32.2"),
                    (linux(command), "litellm", None), (linux(command), "llama.cpp", None),
                    (linux("python3 -m mlx_lm server"), "mlx-lm", None)):
                machine.names = lambda path, known=machine.names: (
                    system.Machine().names(path) if path.startswith(top) else known(path))
                found = server_process.started(machine, PORT, engine, ())
                with self.subTest(engine=engine, words=found.line):
                    self.assertEqual(found.settings.get("runtime.version"), version)

    def test_repository_that_the_model_came_from(self):
        for command, expected in (("llama-server -hf ggml-org/gemma-3-4b-it-GGUF:Q8_0 -t 2",
                               "ggml-org/gemma-3-4b-it-GGUF"),
                              ("python3 -m sglang.launch_server --model-path Qwen/Qwen3-4B",
                               "Qwen/Qwen3-4B"),
                              ("llama-server -m models/m.gguf", None),
                              ("vllm serve /data/Qwen/Qwen3", None),
                              ("vllm serve harness/tests", None)):
            machine = linux(command)
            machine.links["/proc/12/cwd"] = str(documents.ROOT)
            found = server_process.started(machine, PORT, None, ())
            self.assertEqual(found.settings.get("models.0.source_repository"), expected, command)

    def test_model_file_is_read(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "m.gguf").write_bytes(test_gguf.ORDINARY)
            for named in ("m.gguf", f"{folder}/m.gguf"):
                machine = linux(f"llama-server -m {shlex.quote(named)}")
                machine.links["/proc/12/cwd"] = folder
                expected = server_process.started(machine, PORT, "llama.cpp", ()).settings
                self.assertEqual(expected, {"models.0.file_name": "m.gguf",
                                        **gguf.facts(f"{folder}/m.gguf")})
                self.assertEqual(server_process.started(machine, PORT, "llama.cpp", (),
                                                        reads_file=False).settings,
                                 {"models.0.file_name": "m.gguf"})

    def test_environment_variables_that_are_settings(self):
        machine = linux("ollama serve")
        machine.files["/proc/12/environ"] = "\0".join((
            "OLLAMA_KV_CACHE_TYPE=q8_0", "OLLAMA_FLASH_ATTENTION=1", "OLLAMA_HOST=192.168.1.23",
            "OLLAMA_MODELS=/home/sam/models", "OLLAMA_API_KEY=hunter2", "HOME=/home/sam",
            "OLLAMA_NUM_PARALLEL=", "OPENAI_API_KEY=sk-1", "OMP_NUM_THREADS=4", "LANG=C",
            "CUDA_VISIBLE_DEVICES=GPU-3d8e1f5a-7b2c-4f60-9d1e-2a3b4c5d6e7f", ""))
        flags = "OLLAMA_FLASH_ATTENTION=1 OLLAMA_KV_CACHE_TYPE=q8_0 OMP_NUM_THREADS=4"
        self.assertEqual(server_process.started(machine, PORT, "Ollama", ()), Started(
            flags + " ollama serve",
            {"launch_flags": flags, "runtime.flash_attention": "on",
             "runtime.kv_cache_type": "q8_0"}))

    def test_option_overrides_variable(self):
        machine = linux("llama-server -t 4")
        machine.files["/proc/12/environ"] = "LLAMA_ARG_THREADS=8\0LLAMA_ARG_BATCH=512\0"
        found = server_process.started(machine, PORT, "llama.cpp", ())
        self.assertEqual(found.settings, {
            "launch_flags": "LLAMA_ARG_BATCH=512 LLAMA_ARG_THREADS=8 -t 4",
            "runtime.threads_count": "4", "runtime.batch_tokens": "512"})

    def test_no_options_give_no_settings(self):
        self.assertEqual(self.started("ollama serve", "Ollama"), Started("ollama serve", {}))

    def test_forwarders_give_nothing(self):
        for command in ("/usr/bin/docker-proxy -proto tcp -host-port 8080",
                        r"C:\\Windows\\System32\\svchost.exe -k NetSvcs",
                        "'C:/Program Files/Docker/com.docker.backend.exe' services",
                        "'ssh: /Users/x/.colima/ssh.sock [mux]'", "ssh: /x [mux]",
                        "/Applications/OrbStack.app/Contents/MacOS/OrbStack Helper"):
            found = self.started(command)
            self.assertFalse(found and found.settings, command)

    def test_options_that_do_not_change_speed_are_left_out(self):
        silent = ("--no-ui --slots --no-slots --ui --no-webui --metrics --log-disable -v --no-perf "
                  "--warmup --no-warmup --api-prefix x1 --timeout 600 --verbosity 3 "
                  "--no-enable-log-requests --disable-log-stats")
        for line in (f"llama-server -t 8 {silent} -np 4", f"llama-server {silent} -t 8 -np 4"):
            self.assertEqual(self.started(line).settings["launch_flags"], "-t 8 -np 4", line)
        machine = linux("llama-server -t 8")
        machine.files["/proc/12/environ"] = (
            "LLAMA_ARG_NO_WEBUI=1\0LLAMA_ARG_ENDPOINT_SLOTS=1\0LLAMA_ARG_TIMEOUT=9\0"
            "LLAMA_ARG_SSL_CERT_FILE=x\0LLAMA_ARG_LOG_COLORS=1\0LLAMA_ARG_NO_MMAP=1\0")
        found = server_process.started(machine, PORT, "llama.cpp", ()).settings["launch_flags"]
        self.assertEqual(found, "LLAMA_ARG_NO_MMAP=1 -t 8")

    def test_negative_numbers_are_values(self):
        self.assertEqual(self.started("llama-server -n -1 -ngl -1").settings,
                         {"launch_flags": "-n -1 -ngl -1"})

    def test_json_value_keeps_its_quotes(self):
        flag = """--chat-template-kwargs '{"enable_thinking": false}'"""
        self.assertEqual(self.started("llama-server " + flag).settings, {"launch_flags": flag})

    def test_long_option_lists_are_complete(self):
        flags = " ".join(f"--lora-scaled-{i} 0.5" for i in range(40))
        self.assertEqual(self.started("llama-server " + flags).settings, {"launch_flags": flags})

    def test_nothing_private_is_published(self):
        names = (privacy.MachineName("user", "samokafor"),)
        for word in ("'/home/sam/x y/m.gguf'", r"'C:\Users\sam\m.gguf'", "--url=http://10.0.0.7:1/",
                     "--hf-token hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", "--password=hunter2",
                     "--lora samokafor.gguf", "--api-key 'a b'", "-H 'Authorization: Bearer abcd'",
                     "~/models/m.gguf", "-hft hunter2", "--admin_secret hunter2",
                     "--api-key -hunter2", "API_KEY=hunter2",
                     "--auth sam:pw", "--rpc nas.fritz.box:50052"):
            found = self.started("llama-server " + word + " -t 2", names=names)
            expected = found.line + repr(found.settings)
            for private in ("sam", "/home", "Users", "10.0.0.7", "hf_A", "hunter2", "a b",
                            "abcd", "fritz"):
                self.assertNotIn(private, expected, word)
            self.assertEqual(found.settings["runtime.threads_count"], "2", word)


BLOB = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
RUNNER = ("/usr/lib/ollama/llama-server --model /home/sam/.ollama/models/blobs/sha256-" + BLOB +
          " --port 33333 --host 127.0.0.1 -c 16384 -np 4 --flash-attn auto -b 1024 -ub 512 "
          "-t 6 -ctk q8_0 -ctv q8_0 --api-key hunter2 --log-file /home/sam/x.log")


class Children(unittest.TestCase):
    """Ollama computes in a child per model, which holds its settings."""

    maxDiff = None
    settings = {
        "launch_flags": "-c 16384 -np 4 --flash-attn auto -b 1024 -ub 512 -t 6 -ctk q8_0 "
                        "-ctv q8_0",
        "runtime.threads_count": "6", "runtime.batch_tokens": "1024",
        "runtime.micro_batch_tokens": "512", "runtime.flash_attention": "auto",
        "runtime.kv_cache_type": "q8_0", "models.0.slots_count": "4",
        "models.0.context_effective_tokens": "4096", "models.0.digest": f"sha256:{BLOB}"}

    def server(self, *children: str, readable: bool = True) -> RecordedMachine:
        machine = linux("ollama serve")
        for pid, command in enumerate(children, 20):
            machine.files[f"/proc/{pid}/stat"] = f"{pid} (runner) S 12 " + "0 " * 20
            machine.files[f"/proc/{pid}/cmdline"] = "\0".join(shlex.split(command)) + "\0"
            machine.owners[f"/proc/{pid}"] = 1000
        if not readable:
            machine.links.clear()
            machine.owners["/proc/9"] = 0
        return machine

    def test_settings_of_ollamas_child(self):
        for readable in (True, False):
            found = server_process.started(self.server(RUNNER, readable=readable), PORT, "Ollama",
                                           ())
            self.assertEqual(found, Started("ollama serve", self.settings), readable)

    def test_settings_of_several_children_only_where_they_agree(self):
        other = RUNNER.replace(BLOB, BLOB[::-1]).replace("-c 16384", "-c 8192")
        found = server_process.started(self.server(RUNNER, other), PORT, "Ollama", ()).settings
        self.assertEqual(found, {key: text for key, text in self.settings.items() if key not in (
            "launch_flags", "models.0.digest", "models.0.context_effective_tokens")})

    def test_a_runner_without_options_gives_the_weights(self):
        found = server_process.started(self.server(
            f"ollama runner --model /x/blobs/sha256-{BLOB} --port 5", "sh -c sleep"), PORT,
            "Ollama", ())
        self.assertEqual(found.settings, {"models.0.digest": f"sha256:{BLOB}"})

    def test_a_setting_of_the_server_overrides_the_childs(self):
        machine = self.server(RUNNER)
        machine.files["/proc/12/environ"] = "OLLAMA_KV_CACHE_TYPE=q4_0\0"
        found = server_process.started(machine, PORT, "Ollama", ()).settings
        self.assertEqual(found["runtime.kv_cache_type"], "q4_0")
        self.assertTrue(found["launch_flags"].startswith("OLLAMA_KV_CACHE_TYPE=q4_0 -c 16384"))

    def test_slots_of_ollama_are_the_childs_or_else_the_servers(self):
        for child, slots in ((RUNNER.replace("-np 4", "-np 1"), "1"),
                             (f"ollama runner --model /x/blobs/sha256-{BLOB} --port 5", "3")):
            machine = self.server(child)
            machine.files["/proc/12/environ"] = "OLLAMA_NUM_PARALLEL=3\0OLLAMA_NO_CLOUD=1\0"
            found = server_process.started(machine, PORT, "Ollama", ()).settings
            self.assertEqual(found["models.0.slots_count"], slots)
            self.assertNotIn("CLOUD", found["launch_flags"])

    def test_model_file_of_the_only_child_is_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "m.gguf")
            path.write_bytes(test_gguf.ORDINARY)
            runner, other = (shlex.join([name, "-m", str(file)]) for name, file in (
                ("llama-server", path), ("x", path.with_name("n.gguf"))))
            for others, facts in (((), gguf.facts(str(path))), ((other,), {})):
                machine = self.server(runner, *others)
                found = server_process.started(machine, PORT, "llama-swap", ())
                self.assertEqual({key: found.settings.get(key) for key in facts}, facts)
                self.assertEqual("models.0.digest" in found.settings, not others)

    def test_the_last_of_two_spellings_counts(self):
        machine = self.server("llama-server -m /x.gguf -c 16384 -np 4 --ctx-size 8192")
        found = server_process.started(machine, PORT, "Docker Model Runner", ()).settings
        self.assertEqual(found["models.0.context_effective_tokens"], "2048")
        found = server_process.started(linux("llama-server --threads 4 -t 8 -ctk f16 "
                                             "--cache-type-k q8_0"), PORT, "llama.cpp", ()).settings
        self.assertEqual((found["runtime.threads_count"], found["runtime.kv_cache_type"]),
                         ("8", "q8_0/f16"))

    def test_children_on_macos_and_windows(self):
        machine = mac("/usr/local/bin/ollama serve")
        machine.commands.update({"pgrep -P 412": "500\n501\n",
                                 "ps -ww -o command= -p 500": RUNNER,
                                 "ps -ww -o command= -p 501": ""})
        for found in (machine, windows(json.dumps([
                {"CommandLine": "ollama.exe serve"}, {"CommandLine": None},
                {"CommandLine": RUNNER.replace("/", "\\")}]))):
            self.assertEqual(server_process.started(found, PORT, "Ollama", ()).settings,
                             self.settings)


if __name__ == "__main__":
    unittest.main()
