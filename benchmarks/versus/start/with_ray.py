"""From nothing to the first result: Ray."""

import ray


def identity(number: int) -> int:
    return number


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 28)
    print(ray.get(ray.remote(identity).remote(42)), flush=True)
    ray.shutdown()
