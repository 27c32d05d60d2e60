/* The MPI program of these tests, built once for each MPI. Its first argument says what it does; rank 0 prints what came of it. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BIG (1 << 20)

static int rank, size;

static void die(const char *why) {
    fprintf(stderr, "rank %d: %s\n", rank, why);
    exit(70);
}

/* A number that goes round, to which each rank adds its own: the last gives it back to the first. */
static int ring(void) {
    int number = 0, next = (rank + 1) % size, before = (rank + size - 1) % size;
    if (size == 1) return 0;
    if (rank > 0) MPI_Recv(&number, 1, MPI_INT, before, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    number += rank;
    MPI_Send(&number, 1, MPI_INT, next, 1, MPI_COMM_WORLD);
    if (rank == 0) MPI_Recv(&number, 1, MPI_INT, before, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return number;
}

/* 1 MiB to the next rank, byte for byte; gives how many ranks got what they should. */
static int big(void) {
    char *out = malloc(BIG), *in = calloc(1, BIG);
    int next = (rank + 1) % size, before = (rank + size - 1) % size, good = 1, all;
    for (int i = 0; i < BIG; i++) out[i] = (char)(i * 31 + rank);
    MPI_Sendrecv(out, BIG, MPI_CHAR, next, 2, in, BIG, MPI_CHAR, before, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int i = 0; i < BIG; i++) good &= in[i] == (char)(i * 31 + before);
    MPI_Reduce(&good, &all, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
    free(out);
    free(in);
    return all;
}

/* Ranks that share memory with rank 0, as MPI sees it. */
static int beside(void) {
    MPI_Comm node;
    int count;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &count);
    MPI_Comm_free(&node);
    return count;
}

static void values(void) {
    int sum, mine = rank + 1, round = ring(), good = big(), near = beside();
    MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    if (sum != size * (size + 1) / 2) die("the sum is wrong");
    if (rank == 0) printf("size %d ring %d sum %d big %d near %d\n", size, round, sum, good, near);
}

/* Waits until the file is there. */
static void gate(const char *file) {
    while (access(file, F_OK) != 0) usleep(20000);
}

static void note(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/rank-%d", folder, rank);
    FILE *file = fopen(path, "w");
    if (!file) die("cannot write a note");
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "values";
    int last;
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    last = rank == size - 1;
    if (!strcmp(what, "values")) {
        values();
    } else if (!strcmp(what, "say")) {
        printf("out of rank %d\n", rank);
        fprintf(stderr, "err of rank %d\n", rank);
    } else if (!strcmp(what, "exit")) { /* FOLDER-OR-NOTHING: the last rank ends with 3 without a word to MPI. */
        if (last) {
            fprintf(stderr, "first words\nthe last words\n");
            _exit(3);
        }
    } else if (!strcmp(what, "abort")) {
        if (last) MPI_Abort(MPI_COMM_WORLD, 5);
    } else if (!strcmp(what, "crash")) {
        if (last) abort();
    } else if (!strcmp(what, "once")) { /* FILE: fails the first time. */
        if (last && access(words[2], F_OK) != 0) {
            fclose(fopen(words[2], "w"));
            _exit(9);
        }
        values();
    } else if (!strcmp(what, "hang")) { /* FOLDER: all but the last wait in a barrier, and that one for ever. */
        note(words[2]);
        if (last)
            for (;;) pause();
    } else if (!strcmp(what, "gate")) { /* FOLDER */
        char path[4096];
        note(words[2]);
        snprintf(path, sizeof path, "%s/open", words[2]);
        gate(path);
        values();
    } else {
        die("what?");
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (getenv("GANG_LEAVES")) {
        /* Debian's MPICH 4.0.2 with UCX 1.13 hangs in MPI_Finalize once in three times where six ranks are on three hosts, whoever
         * started them (srun and its own PMI as well): a rank that waits for the others there does not answer them over TCP. */
        fflush(NULL);
        _exit(0);
    }
    MPI_Finalize();
    return 0;
}
