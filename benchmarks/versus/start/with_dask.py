"""From nothing to the first result: Dask."""

from distributed import Client, LocalCluster


def identity(number: int) -> int:
    return number


if __name__ == "__main__":
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        print(client.submit(identity, 42).result(), flush=True)
