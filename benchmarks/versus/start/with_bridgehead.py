"""From nothing to the first result: Bridgehead."""

import bridgehead as bh


def identity(number: int) -> int:
    return number


if __name__ == "__main__":
    with bh.Executor(2) as executor:
        print(executor.submit(identity, 42).result(), flush=True)
