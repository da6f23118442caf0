"""The direct runner in several processes, of which each has a share of the shards. One that is killed is replaced.

Beam's direct runner has a mode with processes of its own (`direct_running_mode=multi_processing`). It waits for ever
for a process that was killed, as a system does that lacks memory. Here, each process runs a pipeline of its own, and
this module waits for the processes.
"""

from __future__ import annotations

import builtins
import dataclasses
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from multiprocessing import connection
from typing import Any

from unitbox_tf.batch import pipeline
from unitbox_tf.batch.plan import Plan, Shard

logger = logging.getLogger(__name__)

MOST_DEATHS = 3  # of processes of a worker, one after the other, while none finished a shard
WAIT = 2.0  # seconds after which finished shards are counted


def run(
    plan: Plan,
    job: pipeline.Job,
    workers: int,
    options: Sequence[str] = (),
    prepare: Callable[[], object] | None = None,
) -> Generator[Shard, None, None]:
    """Runs the pipeline for all shards that are left, and gives each shard that had no rows when it has some.

    Args:
        plan: of the job.
        job: the job.
        workers: how many processes.
        options: see `pipeline.run`.
        prepare: is called first in each process.

    Raises:
        ChildProcessError: a process failed, or processes were killed again and again. The others have done their
            shares.
    """
    left, waiting = plan.left(), plan.without_rows()
    errors: list[str] = []
    running: list[_Worker] = []
    try:
        for number in range(min(workers, len(left))):
            task = _Task(job, options, prepare)
            running.append(_Worker.start(task, left[number::workers]))
        while running:
            connection.wait([worker.process.sentinel for worker in running], WAIT)
            ended = [worker for worker in running if not worker.process.is_alive()]
            still = set(plan.without_rows())
            yield from (shard for shard in waiting if shard not in still)
            waiting = [shard for shard in waiting if shard in still]
            for worker in ended:
                running.remove(worker)
                running += worker.replaced(plan, errors)
    finally:
        for worker in running:
            worker.process.terminate()
            worker.process.join()
    if errors:
        raise ChildProcessError("; ".join(dict.fromkeys(errors)))


@dataclasses.dataclass(frozen=True)
class _Task:
    """The arguments of `run` that all processes have in common."""

    job: pipeline.Job
    options: Sequence[str]
    prepare: Callable[[], object] | None


@dataclasses.dataclass(frozen=True)
class _Worker:
    """A process, its share, and how many processes before it were killed since one of them has finished a shard."""

    task: _Task
    shards: list[Shard]
    deaths: int
    process: Any
    said: connection.Connection

    @classmethod
    def start(cls, task: _Task, shards: list[Shard], deaths: int = 0) -> _Worker:
        """Starts a process. It is a new interpreter, because engines do not work in forks."""
        context = multiprocessing.get_context("spawn")
        said, says = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(says, task, shards), daemon=True)
        process.start()
        says.close()  # or its end would not be noticed
        return cls(task, shards, deaths, process, said)

    def replaced(self, plan: Plan, errors: list[str]) -> list[_Worker]:
        """A new process, if this one was killed before its share was finished. Adds what went wrong to `errors`."""
        code = self.process.exitcode
        if self.said.poll():
            try:
                errors.append(self.said.recv())
            except EOFError:  # killed, or finished
                pass
        self.said.close()
        if code == 0:
            return []
        if code > 0:
            errors.append("a worker failed; its error is above")
            return []
        unfinished = set(plan.left())
        left = [shard for shard in self.shards if shard in unfinished]
        deaths = self.deaths + 1 if len(left) == len(self.shards) else 1
        if deaths == MOST_DEATHS:
            more = f" and {len(left) - 1} more files" if len(left) > 1 else ""
            errors.append(
                f"workers were killed {deaths} times by signal {-code} and could not finish {left[0].rows_file}{more}. "
                "Memory may not suffice for so many workers, or for one of the photos"
            )
            return []
        logger.warning("a worker was killed by signal %d; another one takes its place", -code)
        return [_Worker.start(self.task, left, deaths)] if left else []


def _work(says: connection.Connection, task: _Task, shards: list[Shard]) -> None:
    """Does what a process is for. An error that a user understands is sent as text; any other one is printed."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.ERROR)  # Beam warns about what does not matter here
    if task.prepare is not None:
        task.prepare()
    try:
        pipeline.run(task.job, shards, "direct", task.options)
    except RuntimeError as error:
        said = _understood(str(error))
        if said is None:
            raise
        says.send(said)


def _understood(text: str) -> str | None:
    """The message in the text of an error of Beam, if it is one about files or input; else None.

    Beam makes a `RuntimeError` of any error in a pipeline. Its text is a traceback, which ends with such a line:
    OSError: [Errno 28] No space left on device [while running 'write']
    """
    last = text.rstrip().splitlines()[-1] if text.strip() else ""
    found = re.fullmatch(r"(\w+): (.*?)( \[while running '[^']*'\])?", last)
    kind = getattr(builtins, found[1], None) if found else None
    known = isinstance(kind, type) and issubclass(kind, (OSError, ValueError, ImportError))
    return found[2] if found and known else None


def _end_with_parent() -> None:
    """Ends this process when its parent has ended: nobody would replace it, and another command may be started."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
