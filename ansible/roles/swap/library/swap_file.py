#!/usr/bin/python
"""A swap file that is there, active and in fstab, or none of these; right for ext4, xfs and btrfs.

Lives here: one swap file from nothing to /proc/swaps and back, safe to be killed at any point: what is half made has
another name and is in no table. How large it is to be is the role's business.
"""

from __future__ import annotations

import os
import stat
from typing import Any

DOCUMENTATION = r"""
module: swap_file
short_description: Keep one swap file
description:
  - Creates, resizes or removes a swap file, and its line in fstab.
  - The file is written with dd and never has a mode wider than 0600.
options:
  path: {description: The file., type: path, required: true}
  size_mib: {description: Its size; wanted for C(present)., type: int}
  state: {description: Whether it is to be there., type: str, choices: [present, absent], default: present}
  fstab: {description: The table of file systems., type: path, default: /etc/fstab}
  spare_mib: {description: Space that must stay free beside it., type: int, default: 512}
  allow_container: {description: Go on inside a container., type: bool, default: false}
author: [the fleet]
"""

FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs")
SIGNATURE = b"SWAPSPACE2"
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


class RefusedError(Exception):
    """What is wrong, and what to do."""


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def active_swaps(text: str) -> dict[str, tuple[int, int]]:
    """Path -> (MiB, MiB used) of /proc/swaps, where blanks in names are written as \\040."""
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    return {row[0].replace("\\040", " "): (round(int(row[2]) / 1024), int(row[3]) // 1024) for row in rows}


def available_mib(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def fstab_with(text: str, path: str, *, wanted: bool) -> str:
    """The table with exactly one line for this swap file, or with none; all other lines stay as they are."""
    name = path.replace(" ", "\\040")
    line = f"{name} none swap sw 0 0"
    kept: list[str] = []
    found = False
    for old in text.splitlines():
        fields = old.split()
        ours = len(fields) > 2 and fields[0] == name and fields[2] == "swap"
        if ours and wanted and not found and len(fields) >= 4:
            kept.append(old)
            found = True
        elif not ours:
            kept.append(old)
    if wanted and not found:
        kept.append(line)
    return "".join(f"{row}\n" for row in kept)


def has_signature(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(PAGE - len(SIGNATURE))
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


class SwapFile:
    """One swap file on this host, and the steps that bring it where it is wanted."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.path = os.path.realpath(module.params["path"])
        self.size = module.params["size_mib"]
        self.fstab = module.params["fstab"]
        self.steps: list[str] = []

    def run(self, *command: str, says: str) -> None:
        code, _, errors = self.module.run_command(list(command))
        if code:
            raise RefusedError(f"{says}: {errors.strip() or f'{command[0]} ended with {code}'}")

    def step(self, text: str) -> bool:
        """Note a step; True when it is to be done and not only told."""
        self.steps.append(text)
        return not self.module.check_mode

    def ensure_present(self) -> None:
        active = active_swaps(read("/proc/swaps")).get(self.path)
        # mkswap's header takes a page, and /proc/swaps does not count it.
        if active and abs(active[0] - self.size) <= 1:
            self.write_fstab(wanted=True)
            return
        self.refuse_unfit_place()
        if active:
            self.stop(active[1])
        if active or not self.is_whole():
            self.refuse_full_disk()
            self.make()
        if self.step(f"activate {self.path}"):
            self.start()
        self.write_fstab(wanted=True)

    def ensure_absent(self) -> None:
        active = active_swaps(read("/proc/swaps")).get(self.path)
        self.write_fstab(wanted=False)
        if active:
            self.stop(active[1])
        for path in (self.path, f"{self.path}.new"):
            if os.path.lexists(path) and self.step(f"remove {path}"):
                os.unlink(path)

    def is_whole(self) -> bool:
        try:
            info = os.lstat(self.path)
        except OSError:
            return False
        right = stat.S_ISREG(info.st_mode) and info.st_size == self.size * MIB
        return right and stat.S_IMODE(info.st_mode) == 0o600 and info.st_uid == 0 and has_signature(self.path)

    def refuse_unfit_place(self) -> None:
        folder = os.path.dirname(self.path)
        code, kind, _ = self.module.run_command(
            ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder]
        )
        kind = kind.strip()
        if code or kind not in FILE_SYSTEMS:
            raise RefusedError(
                f"{folder} is on {kind or 'an unknown file system'}, which cannot hold a swap file. "
                f"Set swap_path to a place on {', '.join(FILE_SYSTEMS)}, or swap_state: absent."
            )
        code, virtual, _ = self.module.run_command(["systemd-detect-virt", "--container"])
        if code == 0 and not self.module.params["allow_container"]:
            raise RefusedError(
                f"this host is a container ({virtual.strip()}), whose swap belongs to the machine below it. "
                "Make swap there, and set swap_state: absent here."
            )

    def refuse_full_disk(self) -> None:
        place = os.statvfs(os.path.dirname(self.path))
        free = place.f_bavail * place.f_frsize // MIB
        for path in (self.path, f"{self.path}.new"):
            if os.path.isfile(path):
                free += os.stat(path).st_blocks * 512 // MIB
        needed = self.size + self.module.params["spare_mib"]
        if free < needed:
            raise RefusedError(
                f"{os.path.dirname(self.path)} has {free} MiB free; a swap file of {self.size} MiB and "
                f"{self.module.params['spare_mib']} MiB beside it need {needed}. Free some space, or set swap_size_mib."
            )

    def stop(self, used: int) -> None:
        available = available_mib(read("/proc/meminfo"))
        if used >= available:
            raise RefusedError(
                f"{used} MiB are swapped out to {self.path} and only {available} MiB of memory are available; taking "
                "it away now would run the host out of memory. Stop some programs, then run this again."
            )
        if self.step(f"deactivate {self.path}"):
            self.run("swapoff", self.path, says=f"{self.path} cannot be deactivated")

    def make(self) -> None:
        """Under another name, readable by root alone from its first byte; the right name comes when it is whole."""
        if not self.step(f"write {self.size} MiB to {self.path}"):
            return
        new = f"{self.path}.new"
        for old in (new, self.path):
            if os.path.lexists(old):
                os.unlink(old)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        try:
            _, kind, _ = self.module.run_command(
                ["findmnt", "-n", "-o", "FSTYPE", "-T", os.path.dirname(new)]
            )
            if (
                kind.strip() == "btrfs"
            ):  # only while it is empty: no copy on write, and with it no compression
                self.run("chattr", "+C", new, says=f"copy on write cannot be switched off for {new}")
            # fallocate would leave extents that xfs and btrfs report as holes, and the kernel refuses those.
            self.run(
                "dd", "if=/dev/zero", f"of={new}", "bs=1M", f"count={self.size}", "conv=notrunc,fsync",
                says=f"{new} cannot be written",
            )  # fmt: skip
            self.run("mkswap", new, says=f"{new} cannot be made a swap file")
            os.rename(new, self.path)
        except BaseException:
            if os.path.lexists(new):
                os.unlink(new)
            raise

    def start(self) -> None:
        try:
            self.run("swapon", self.path, says=f"the kernel refuses {self.path}")
        except RefusedError:
            os.unlink(self.path)
            raise
        if self.path not in active_swaps(read("/proc/swaps")):
            raise RefusedError(f"swapon accepted {self.path}, but it is not in /proc/swaps")

    def write_fstab(self, *, wanted: bool) -> None:
        before = read(self.fstab)
        after = fstab_with(before, self.path, wanted=wanted)
        if before == after or not self.step(f"{'name' if wanted else 'forget'} it in {self.fstab}"):
            return
        new = f"{self.fstab}.asr-new"
        with open(new, "w", encoding="utf-8") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, 0o644)
        self.replace(new)

    def replace(self, new: str) -> None:
        try:
            os.rename(new, self.fstab)
        except OSError:  # a bind mount cannot be replaced, only written
            with open(new, encoding="utf-8") as source, open(self.fstab, "w", encoding="utf-8") as target:
                target.write(source.read())
            os.unlink(new)


def main() -> None:
    # Ansible is in the environment that runs playbooks, not in the one that tests the functions above.
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "size_mib": {"type": "int"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "fstab": {"type": "path", "default": "/etc/fstab"},
            "spare_mib": {"type": "int", "default": 512},
            "allow_container": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["size_mib"])],
        supports_check_mode=True,
    )
    swap = SwapFile(module)
    try:
        if module.params["state"] == "present":
            swap.ensure_present()
        else:
            swap.ensure_absent()
    except RefusedError as refused:
        module.fail_json(msg=str(refused), steps=swap.steps)
    except OSError as error:
        module.fail_json(msg=f"{swap.path}: {error.strerror or error}", steps=swap.steps)
    module.exit_json(changed=bool(swap.steps), steps=swap.steps)


if __name__ == "__main__":
    main()
