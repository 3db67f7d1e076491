"""Which container a cgroup or a process belongs to, under every runtime and driver."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from monitoring.exporter.containers import (
    ContainerGroup,
    container_of,
    container_of_pid,
    count_kills,
    memory_tree,
    walk,
)
from tests.fakes.kernel import RUNTIMES, FakeKernel, Runtime, container_id

ID = container_id("asr")


@pytest.mark.parametrize(
    "path",
    [
        f"/system.slice/docker-{ID}.scope",
        f"/docker/{ID}",
        f"/docker/{ID}/docker/{container_id('inner')}",
        f"/../../system.slice/docker-{ID}.scope/init",
        f"/machine.slice/libpod-{ID}.scope/container",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
        f"/libpod_parent/libpod-{ID}",
        f"/kubepods/burstable/pod123/{ID}",
        f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope",
    ],
)
def test_the_container_of_a_cgroup(path: str) -> None:
    assert container_of(path) == ID


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/system.slice/ssh.service",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/docker/{ID[:40]}",
        f"/x/{ID}0",
    ],
)
def test_what_is_no_container(path: str) -> None:
    assert container_of(path) is None


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("version", [1, 2])
def test_the_container_of_a_process(tmp_path: Path, version: Literal[1, 2], runtime: Runtime) -> None:
    kernel = FakeKernel(tmp_path, version, runtime)
    kernel.process(7, "python3", "asr")
    kernel.process(8, "bash", None)
    assert container_of_pid(tmp_path, 7) == ID
    assert container_of_pid(tmp_path, 8) is None
    with pytest.raises(OSError, match="No such file"):
        container_of_pid(tmp_path, 9)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("version", [1, 2])
def test_containers_are_found_and_their_kills_read(
    tmp_path: Path, version: Literal[1, 2], runtime: Runtime
) -> None:
    kernel = FakeKernel(tmp_path, version, runtime)
    kernel.kills("asr", 3)
    (kernel.groups / "system.slice/ssh.service").mkdir(parents=True)
    tree = memory_tree(tmp_path)
    assert tree is not None
    assert tree.version == version
    groups = [met for met in walk(tree) if isinstance(met, ContainerGroup)]
    assert [(group.container, count_kills(group, tree)) for group in groups] == [(ID, 3)]


@pytest.mark.parametrize(("version", "kills"), [(1, 5), (2, 3)])
def test_groups_inside_a_container_count_once(tmp_path: Path, version: Literal[1, 2], kills: int) -> None:
    """memory.events of version 2 has them already; memory.oom_control of version 1 has not."""
    kernel = FakeKernel(tmp_path, version)
    kernel.kills("asr", 3)
    kernel.kills("asr", 2, inside="worker")
    tree = memory_tree(tmp_path)
    assert tree is not None
    (group,) = [met for met in walk(tree) if isinstance(met, ContainerGroup)]
    assert count_kills(group, tree) == kills


def test_a_group_that_vanishes_has_no_count(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    kernel.kills("asr", 3)
    tree = memory_tree(tmp_path)
    assert tree is not None
    (group,) = [met for met in walk(tree) if isinstance(met, ContainerGroup)]
    kernel.remove("asr")
    assert count_kills(group, tree) is None
    assert not [met for met in walk(tree) if isinstance(met, ContainerGroup)]


def test_a_host_without_memory_groups(tmp_path: Path) -> None:
    assert memory_tree(tmp_path) is None
