"""From nothing to the first result: Parsl."""

import os

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor


def identity(number: int) -> int:
    return number


if __name__ == "__main__":
    executor = HighThroughputExecutor(label="local", address="127.0.0.1", max_workers_per_node=2)
    with parsl.load(Config(executors=[executor], strategy="none", run_dir=os.path.join(os.getcwd(), "r"))):
        print(parsl.python_app(identity)(42).result(), flush=True)
