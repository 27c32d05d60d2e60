"""From nothing to the first result: the standard library's process pool."""

from concurrent.futures import ProcessPoolExecutor


def identity(number: int) -> int:
    return number


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as executor:
        print(executor.submit(identity, 42).result(), flush=True)
