/* What the tests run as a gang: sums ranks, aborts, or waits in a barrier that one rank never comes to. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int rank, size, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (argc > 2 && strcmp(argv[1], "wait") == 0) {
        /* A file says that this rank has come so far. */
        char name[512];
        snprintf(name, sizeof name, "%s/%d", argv[2], rank);
        FILE *file = fopen(name, "w");
        if (file) fclose(file);
        if (rank == 0) for (;;) pause();
        MPI_Barrier(MPI_COMM_WORLD);
    }
    if (argc > 1 && strcmp(argv[1], "abort") == 0) {
        if (rank == 1) MPI_Abort(MPI_COMM_WORLD, 7);
        MPI_Barrier(MPI_COMM_WORLD);
        for (;;) pause();
    }
    int one = rank + 1;
    MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d sum %d\n", rank, size, sum);
    MPI_Finalize();
    return sum != size * (size + 1) / 2;
}
