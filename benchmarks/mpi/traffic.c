/* Traffic between two ranks: ping-pong and allreduce of 8 B and 1 MiB. Rank 0 prints one line of JSON: the medians of batches in
 * microseconds, and the processors that each rank is bound to. A wrong byte ends it.
 * usage: traffic BATCHES */
#define _GNU_SOURCE
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGE (1 << 20)

static int rank, batches;
static double *in, *out;

/* There and back of so many bytes. */
static void trip(int bytes) {
    if (rank == 0) MPI_Send(out, bytes, MPI_BYTE, 1, 1, MPI_COMM_WORLD);
    MPI_Recv(in, bytes, MPI_BYTE, 1 - rank, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (rank == 1) MPI_Send(in, bytes, MPI_BYTE, 0, 1, MPI_COMM_WORLD);
}

static void reduce(int bytes) { MPI_Allreduce(out, in, bytes / (int)sizeof(double), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD); }

static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of one call: the median of the batches, each of which is timed as a whole; the first one does not count. */
static double median(void (*call)(int), int bytes, int calls) {
    double *each = malloc((size_t)batches * sizeof *each);
    for (int batch = -1; batch < batches; batch++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double begin = MPI_Wtime();
        for (int i = 0; i < calls; i++) call(bytes);
        if (batch >= 0) each[batch] = (MPI_Wtime() - begin) * 1e6 / calls;
    }
    qsort(each, (size_t)batches, sizeof *each, order);
    double found = each[batches / 2];
    free(each);
    return found;
}

/* The processors that this rank may use, as bits. */
static unsigned long long bound(void) {
    cpu_set_t set;
    unsigned long long bits = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 0;
    for (int i = 0; i < 64; i++) bits |= (unsigned long long)(CPU_ISSET(i, &set) != 0) << i;
    return bits;
}

int main(int argc, char **argv) {
    int size;
    unsigned long long mine, every[2];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    batches = argc > 1 ? atoi(argv[1]) : 20;
    if (size != 2 || batches < 1) MPI_Abort(MPI_COMM_WORLD, 2);
    in = calloc(1, LARGE);
    out = calloc(1, LARGE);
    for (int i = 0; i < LARGE / (int)sizeof *out; i++) out[i] = i + 1;
    double trip_small = median(trip, 8, 200), trip_large = median(trip, LARGE, 10);
    if (memcmp(in, out, LARGE) != 0) MPI_Abort(MPI_COMM_WORLD, 3);
    double reduce_small = median(reduce, 8, 200), reduce_large = median(reduce, LARGE, 10);
    if (in[7] != 2 * out[7]) MPI_Abort(MPI_COMM_WORLD, 4);
    mine = bound();
    MPI_Gather(&mine, 1, MPI_UNSIGNED_LONG_LONG, every, 1, MPI_UNSIGNED_LONG_LONG, 0, MPI_COMM_WORLD);
    if (rank == 0)
        printf("{\"trip_small\": %.4f, \"trip_large\": %.4f, \"reduce_small\": %.4f, \"reduce_large\": %.4f, "
               "\"bound\": [%llu, %llu]}\n",
               trip_small, trip_large, reduce_small, reduce_large, every[0], every[1]);
    MPI_Finalize();
    return 0;
}
