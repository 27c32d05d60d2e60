// Heat on a plate, by ranks that share its rows: u_t = a (u_xx + u_yy) + q. Each rank publishes its block under a name of its own,
// field.<rank>, every few steps: two steps one behind the other, so that the rate of change is there.
//
//     heat DIFFUSIVITY STRENGTH FIELDS
//
// Without MPI it is one rank. With it (cc -DUSE_MPI, or mpicc) neighbours exchange the rows at their borders.

#include <bridgehead.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef USE_MPI
#include <mpi.h>
#endif

enum { SIZE = 192, STRIDE = 20 };
static const double DT = 0.2;

static int rank = 0, ranks = 1;

static void end(int code) {
#ifdef USE_MPI
  if (code != 0) MPI_Abort(MPI_COMM_WORLD, code);
  MPI_Finalize();
#endif
  exit(code);
}

static void check(bh_status status, const char *what) {
  if (status == BH_OK) return;
  fprintf(stderr, "rank %d: cannot %s: %s\n", rank, what, bh_error());
  end(1);
}

// Gives the rows at this block's borders to the neighbours, and takes theirs into the rows around it.
static void exchange(double *u, int rows) {
#ifdef USE_MPI
  int up = rank > 0 ? rank - 1 : MPI_PROC_NULL, down = rank + 1 < ranks ? rank + 1 : MPI_PROC_NULL;
  MPI_Sendrecv(u + SIZE, SIZE, MPI_DOUBLE, up, 0, u + (rows + 1) * SIZE, SIZE, MPI_DOUBLE, down, 0, MPI_COMM_WORLD,
               MPI_STATUS_IGNORE);
  MPI_Sendrecv(u + rows * SIZE, SIZE, MPI_DOUBLE, down, 1, u, SIZE, MPI_DOUBLE, up, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
#else
  (void)u, (void)rows;
#endif
}

// Whether the plate is heated here: a disc off its middle.
static int heated(int row, int column) {
  double y = row - SIZE / 2.0, x = column - SIZE / 3.0;
  return x * x + y * y < (SIZE / 10.0) * (SIZE / 10.0);
}

static void step(double *after, const double *before, int first, int rows, double diffusivity, double strength) {
  for (int i = 1; i <= rows; i++) {
    int row = first + i - 1;
    if (row == 0 || row == SIZE - 1) continue; // The plate's rim stays cold.
    for (int k = 1; k < SIZE - 1; k++) {
      const double *u = before + i * SIZE + k;
      double spread = u[1] + u[-1] + u[SIZE] + u[-SIZE] - 4 * u[0];
      after[i * SIZE + k] = u[0] + DT * (diffusivity * spread + strength * heated(row, k));
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "give diffusivity, strength and the number of fields\n");
    return 2;
  }
#ifdef USE_MPI
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
#endif
  double diffusivity = atof(argv[1]), strength = atof(argv[2]);
  int fields = atoi(argv[3]), first = SIZE * rank / ranks, rows = SIZE * (rank + 1) / ranks - first;
  size_t block = (size_t)rows * SIZE * sizeof(double);
  double *now = calloc((size_t)(rows + 2) * SIZE, sizeof *now), *next = calloc((size_t)(rows + 2) * SIZE, sizeof *next);
  if (now == NULL || next == NULL) end(1);

  bh_store *store;
  char name[32];
  int64_t shape[3] = {2, rows, SIZE};
  snprintf(name, sizeof name, "field.%d", rank);
  check(bh_open(&store), "open the store");
  check(bh_stream(store, name, 2, 1), "make a stream"); // Two fields at most, and nobody misses one.
  for (int field = 0; field < fields; field++) {
    for (int i = 0; i < STRIDE; i++) {
      exchange(now, rows);
      step(next, now, first, rows, diffusivity, strength);
      double *before = now;
      now = next, next = before;
    }
    bh_draft *draft;
    double *place;
    check(bh_create(store, BH_FLOAT64, BH_C_ORDER, 3, shape, &draft, (void **)&place), "make room for a field");
    memcpy(place, next + SIZE, block);
    memcpy(place + rows * SIZE, now + SIZE, block);
    check(bh_publish(draft, name, BH_FOREVER, NULL), "publish a field");
  }
  check(bh_close_name(store, name), "close the stream");
  bh_close(store);
  free(now), free(next);
  end(0);
}
