"""The step that stays on the device, recorded as a CUDA graph: on a GPU that only pretends to be one."""

import contextlib

import numpy as np
import pytest
import torch

from tests import test_networks_step
from toyiwae.errors import InputWarning, ToyiwaeError
from toyiwae.networks import captured
from toyiwae.networks.captured import Captured, Shared
from toyiwae.networks.data.batches import DeviceBatches
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.optim import DeviceAdam
from toyiwae.networks.resident import ResidentStep

SIZE = 4


def images(count=10, pixels=test_networks_step.DIM_X, dtype=np.uint8):
    """Images that epochs of three batches go through, the last with two images."""
    ink = np.random.default_rng(3).integers(0, 256, (count, pixels))
    return of_arrays("random", ink.astype(np.uint8), ink[:1].astype(np.uint8)).binarised("dynamic")


def start(model, stack, noise, data):
    """The step of a stack, and what it consists of."""
    batches = DeviceBatches(data, noise, SIZE)
    adam = DeviceAdam(model.parameters, [member.learning_rate for member in stack])
    return ResidentStep(model, stack, batches, adam, noise), batches, adam


class Gpu:
    """Stands in for torch.cuda: what runs in `graph` is remembered, not done, and done in `replay`."""

    def __init__(self, monkeypatch, work):
        self.log, self.work, gpu = [], work, self

        class CUDAGraph:
            def replay(self):
                gpu.log.append("replay")
                work()

        class graph:
            def __init__(self, made, pool):
                gpu.log.append("record")
                gpu.pools.append(pool)

            def __enter__(self):
                gpu.recording = True

            def __exit__(self, *failure):
                gpu.recording = False
                if failure[0] is not None:
                    raise RuntimeError("capture was invalidated")

        class Stream:
            def __init__(self):
                gpu.streams += 1

            def wait_stream(self, other):
                gpu.log.append("wait")

        self.recording, self.pools, self.streams = False, [], 0
        here = Stream()
        for name, fake in {"CUDAGraph": CUDAGraph, "graph": graph, "Stream": Stream}.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: here)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: gpu.log.append(stream is here))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
        monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
        monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)

    def __call__(self):
        if not self.recording:
            self.log.append("run")
            self.work()


def test_a_step_is_made_once_whether_it_runs_is_recorded_or_replayed(monkeypatch):
    done = []
    gpu = Gpu(monkeypatch, lambda: done.append(len(done)))
    whole = Captured(gpu, "cuda")
    states = []
    for number in range(captured.WARM + 3):
        whole()
        states.append(whole.recorded)
        assert len(done) == number + 1
    assert gpu.log == ["wait", "run", "wait"] * captured.WARM + ["record"] + ["replay"] * 3
    assert states == [False] * captured.WARM + [True] * 3
    for plain in (Captured(gpu, "cuda", graph=False), Captured(gpu, "cpu")):
        gpu.log.clear()
        for _ in range(captured.WARM + 2):
            plain()
        assert gpu.log == ["run"] * (captured.WARM + 2)
        assert not plain.recorded


def test_what_cannot_be_recorded_is_one_line(monkeypatch):
    def work():
        if gpu.recording:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    gpu = Gpu(monkeypatch, work)
    whole = Captured(work, "cuda")
    for _ in range(captured.WARM):
        whole()
    with pytest.raises(ToyiwaeError) as caught:
        whole()
    assert str(caught.value) == (
        "a step cannot be one CUDA graph (operation not permitted when stream is capturing): set training.graph = off"
    )


def failing(gpu, error):
    def work():
        if gpu().recording:
            raise error
        gpu().log.append("run")

    return work


def test_what_cannot_be_recorded_and_need_not_be_runs_as_it_is(monkeypatch):
    """One warning for all that share a device; every call does its work once; the caller's stream is set again."""
    error = RuntimeError("operation not permitted when stream is capturing\nmore")
    work = failing(lambda: gpu, error)
    gpu, shared = Gpu(monkeypatch, work), Shared()
    whole, last = (Captured(work, "cuda", must=False, shared=shared) for _ in range(2))
    for one in (whole, last):
        for _ in range(captured.WARM):
            one()
    gpu.log.clear()
    with pytest.warns(InputWarning, match=r"capturing\): steps are made without") as caught:
        whole()
    assert len(caught) == 1
    for one in (last, whole, last, whole, last):
        one()
    assert gpu.log == ["record", True] + ["run"] * 6
    assert not whole.recorded


def test_a_full_memory_is_no_matter_of_graphs(monkeypatch):
    work = failing(lambda: gpu, torch.OutOfMemoryError("full"))
    gpu = Gpu(monkeypatch, work)
    whole = Captured(work, "cuda", must=False)
    for _ in range(captured.WARM):
        whole()
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        whole()


def test_graphs_of_a_device_share_memory_and_a_stream(monkeypatch):
    gpu, shared = Gpu(monkeypatch, lambda: None), Shared()
    calls = [Captured(gpu, "cuda", shared=shared) for _ in range(2)]
    before = gpu.streams
    for one in calls:
        for _ in range(captured.WARM + 1):
            one()
    assert len(gpu.pools) == 2
    assert gpu.pools[0] is gpu.pools[1]
    assert gpu.streams == before + 1
