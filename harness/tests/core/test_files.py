"""Durable files: atomic, flushed to disk, locked by one process."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from core import files
from tests import runs


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(folder.name, "x.json")

    def open(self) -> int:
        fd = files.open_to_append(self.path)
        self.addCleanup(os.close, fd)
        return fd

    def test_write_whole_replaces_the_file(self):
        for data in (b"old", b"", b"new"):
            files.write_whole(self.path, data)
            self.assertEqual((files.read(self.path), os.listdir(self.folder)), (data, ["x.json"]))

    def test_write_whole_flushes_before_renaming(self):
        order = []
        with mock.patch.object(files, "flush_to_disk", lambda fd: order.append(
                (os.fstat(fd).st_size, os.path.exists(self.path)))):
            files.write_whole(self.path, b"data")
        self.assertEqual(order, [(4, False)])

    def test_failed_write_keeps_the_old_file_only(self):
        files.write_whole(self.path, b"old")
        for name in ("flush_to_disk", "os.replace"):
            with mock.patch(f"core.files.{name}", side_effect=OSError(28, "Full")), \
                    self.assertRaises(OSError):
                files.write_whole(self.path, b"new")
            self.assertEqual((files.read(self.path), os.listdir(self.folder)), (b"old", ["x.json"]))

    def test_windows_replaces_again_while_a_scanner_holds_the_file(self):
        for failures, fails in ((3, False), (99, True)):
            with self.subTest(failures), mock.patch("os.name", "nt"), \
                    mock.patch("time.sleep") as slept, mock.patch("os.replace", side_effect=[
                        *[PermissionError(13, "held")] * failures, None]) as replaced:
                if fails:
                    self.assertRaises(PermissionError, files.replace, "a", "b")
                else:
                    files.replace("a", "b")
                self.assertEqual((replaced.call_count, slept.call_count),
                                 (10, 9) if fails else (4, 3))

    def test_disks_without_flushing_are_written_all_the_same(self):
        for number, fails in ((95, False), (22, False), (25, False), (28, True), (5, True)):
            with self.subTest(number), mock.patch("os.fsync", side_effect=OSError(number, "x")):
                if fails:
                    self.assertRaises(OSError, files.write_whole, self.path, b"new")
                else:
                    files.write_whole(self.path, b"new")

    @unittest.skipIf(os.name == "nt", "Windows has locks on every drive")
    def test_file_systems_without_locks_use_a_file(self):
        for number in (37, 95, 38):
            with self.subTest(number), mock.patch("fcntl.flock", side_effect=OSError(number, "x")):
                fd = self.open()
                self.assertTrue(files.lock(fd, self.path))
                self.assertTrue(files.is_locked(self.path))
                files.unlock(self.path)
                self.assertFalse(files.is_locked(self.path))
                with open(self.path + files.LOCK_SUFFIX, "w", encoding="ascii") as file:
                    file.write("999999999")                 # a process that was killed
                self.assertTrue(files.lock(fd, self.path))
                files.unlock(self.path)
        with mock.patch("fcntl.flock", side_effect=OSError(11, "x")):
            self.assertFalse(files.lock(self.open(), self.path))

    def test_leftover_of_a_killed_process_is_overwritten(self):
        with open(self.path + ".part", "wb") as file:
            file.write(b"half of something longer")
        files.write_whole(self.path, b"whole")
        self.assertEqual((files.read(self.path), os.listdir(self.folder)), (b"whole", ["x.json"]))

    def test_missing_file_is_empty(self):
        self.assertEqual(files.read(self.path), b"")
        with self.assertRaises(OSError):
            files.read(self.folder)

    def test_appending_creates_the_file_and_never_truncates(self):
        for piece in (b"one", b"two"):
            fd = files.open_to_append(self.path)
            os.write(fd, piece)
            files.flush_to_disk(fd)
            os.close(fd)
        self.assertEqual(files.read(self.path), b"onetwo")

    def test_lock_has_one_holder(self):
        first, second = self.open(), self.open()
        self.assertEqual([files.lock(first), files.lock(second), files.is_locked(self.path)],
                         [True, False, True])

    def test_is_locked_changes_nothing(self):
        self.assertFalse(files.is_locked(self.path))
        self.assertEqual(os.listdir(self.folder), [])
        fd = self.open()
        self.assertFalse(files.is_locked(self.path))
        self.assertTrue(files.lock(fd))

    def test_lock_ends_with_its_process_and_is_not_inherited(self):
        program = ("import subprocess, sys\nfrom core import files\n"
                   f"assert files.lock(files.open_to_append({self.path!r}))\n"
                   "child = subprocess.Popen([sys.executable, '-c',\n"
                   "                          'import sys; sys.stdin.read()'])\n"
                   "print(child.pid, flush=True)\nsys.stdin.read()")
        process = subprocess.Popen([sys.executable, "-c", program], cwd=runs.HARNESS,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.assertGreater(int(process.stdout.readline()), 0)
        self.assertTrue(files.is_locked(self.path))
        process.kill()
        process.wait()
        self.assertFalse(files.is_locked(self.path))         # its own child still lives
        process.stdin.close()
        process.stdout.close()

    def test_flush_uses_the_systems_strongest(self):
        fd = self.open()
        with mock.patch.object(files.os, "fsync") as fsync, \
                mock.patch.object(files.sys, "platform", "linux"):
            files.flush_to_disk(fd)
        fsync.assert_called_once_with(fd)
        fcntl = mock.Mock(F_FULLFSYNC=51)
        with mock.patch.dict(sys.modules, fcntl=fcntl), \
                mock.patch.object(files.sys, "platform", "darwin"):
            files.flush_to_disk(fd)
        fcntl.fcntl.assert_called_once_with(fd, 51)

    def test_windows_locks_a_byte_beyond_any_ledger(self):
        fd = self.open()
        msvcrt = mock.Mock(LK_NBLCK=2)
        with mock.patch.dict(sys.modules, msvcrt=msvcrt), \
                mock.patch.object(files.os, "name", "nt"):
            self.assertTrue(files.lock(fd))
            msvcrt.locking.side_effect = OSError(13, "Permission denied")
            self.assertFalse(files.lock(fd))
        msvcrt.locking.assert_called_with(fd, 2, 1)
        self.assertEqual(os.lseek(fd, 0, os.SEEK_CUR), 1 << 40)
