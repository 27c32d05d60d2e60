// A program of a run, for the tests of the C library: each of its parts shows one law. Prints what it found, and ends with 1 at
// the first thing that is not as it should be.

#include <bridgehead.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(what)                                                                   \
  do {                                                                                \
    if (!(what)) {                                                                    \
      fprintf(stderr, "line %d: %s does not hold: %s\n", __LINE__, #what, bh_error()); \
      exit(1);                                                                        \
    }                                                                                 \
  } while (0)

static const double LIMIT = 60.0;

// Publishes steps of a field of n by n numbers, filled in place where `in_place` is not 0.
static void solve(bh_store *store, const char *name, int steps, int64_t n, int in_place) {
  int64_t shape[2] = {n, n}, version = 0;
  CHECK(bh_stream(store, name, 2, 1) == BH_OK);
  double *own = malloc((size_t)(n * n) * sizeof *own);
  for (int step = 1; step <= steps; step++) {
    bh_draft *draft = NULL;
    void *data = own;
    if (in_place) CHECK(bh_create(store, BH_FLOAT64, BH_C_ORDER, 2, shape, &draft, &data) == BH_OK);
    CHECK((uintptr_t)data % (in_place ? 64 : 8) == 0);
    for (int64_t i = 0; i < n * n; i++) ((double *)data)[i] = step + (double)i;
    version = 0;
    if (in_place) {
      CHECK(bh_publish(draft, name, LIMIT, &version) == BH_OK);
    } else {
      CHECK(bh_put(store, name, BH_FLOAT64, BH_C_ORDER, 2, shape, data, LIMIT, &version) == BH_OK);
    }
    CHECK(version == step);
  }
  free(own);
  CHECK(bh_close_name(store, name) == BH_OK);
}

// Follows a field and prints version, axes, order and sum of each step.
static void follow(bh_store *store, const char *name) {
  bh_watch *watch;
  bh_view view;
  bh_status status;
  CHECK(bh_follow(store, name, 0, &watch) == BH_OK);
  while ((status = bh_next(watch, LIMIT, &view)) == BH_OK) {
    CHECK(view.dtype == BH_FLOAT64 && (uintptr_t)view.data % 64 == 0);
    double sum = 0;
    for (uint64_t i = 0; i < view.bytes / 8; i++) sum += ((const double *)view.data)[i];
    printf("%lld %d %d %.0f\n", (long long)view.version, view.ndim, view.order, sum);
    bh_release(&view);
    CHECK(view.hold == NULL);
    bh_release(&view);
  }
  CHECK(status == BH_END);
  bh_unwatch(watch);
}

// Puts an array of each type, and takes what Python put of each type.
static void types(bh_store *store) {
  static const int32_t all[] = {BH_BOOL,   BH_INT8,   BH_INT16,   BH_INT32,   BH_INT64,       BH_UINT8,     BH_UINT16,      BH_UINT32,
                                BH_UINT64, BH_FLOAT16, BH_FLOAT32, BH_FLOAT64, BH_LONG_DOUBLE, BH_COMPLEX64, BH_COMPLEX128, BH_LONG_COMPLEX};
  int64_t shape[3] = {2, 3, 4};
  static unsigned char zeros[24 * 32];
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char name[32];
    bh_view view;
    int32_t size = all[i] & 0xff;
    snprintf(name, sizeof name, "c.%d", all[i]);
    CHECK(bh_put(store, name, all[i], i % 2 ? BH_FORTRAN_ORDER : BH_C_ORDER, 3, shape, zeros, 0, NULL) == BH_OK);
    CHECK(bh_get(store, name, 0, 0, &view) == BH_OK);
    CHECK(view.dtype == all[i] && view.ndim == 3 && view.shape[1] == 3 && view.shape[3] == 0);
    CHECK(view.strides[i % 2 ? 0 : 2] == size && view.bytes == 24u * (unsigned)size);
    bh_release(&view);
    snprintf(name, sizeof name, "python.%d", all[i]);
    CHECK(bh_get(store, name, 1, LIMIT, &view) == BH_OK);
    CHECK(view.dtype == all[i] && view.ndim == 2 && view.shape[0] == 5 && view.shape[1] == 1);
    bh_release(&view);
  }
  double one = 1.5;
  bh_view view;
  CHECK(bh_put(store, "scalar", BH_FLOAT64, BH_C_ORDER, 0, NULL, &one, 0, NULL) == BH_OK);
  shape[1] = 0;
  CHECK(bh_put(store, "empty", BH_INT32, BH_C_ORDER, 3, shape, NULL, 0, NULL) == BH_OK);
  CHECK(bh_get(store, "empty", 0, 0, &view) == BH_OK && view.bytes == 0 && view.ndim == 3);
  bh_release(&view);
}

// Says what is wrong, by code and words, and goes on.
static void errors(bh_store *store) {
  int64_t shape[2] = {2, 2}, found = 0;
  double data[4] = {0};
  bh_view view;
  bh_draft *draft;
  void *place;
  CHECK(bh_get(store, "nobody", 0, 0, &view) == BH_UNKNOWN && strstr(bh_error(), "nobody") && view.hold == NULL);
  CHECK(bh_get(store, "nobody", 0, 0.05, &view) == BH_TIMEOUT && strstr(bh_error(), "in time"));
  CHECK(bh_wait(store, "nobody", 3, 0.05, &found) == BH_TIMEOUT);
  CHECK(bh_get(store, "pickled", 0, LIMIT, &view) == BH_NOT_AN_ARRAY && strstr(bh_error(), "contiguous numpy array"));
  CHECK(bh_get(store, "", 0, 0, &view) == BH_INVALID && bh_get(store, NULL, 0, 0, &view) == BH_INVALID);
  CHECK(bh_get(NULL, "x", 0, 0, &view) == BH_INVALID && bh_get(store, "x", -1, 0, &view) == BH_INVALID);
  CHECK(bh_get(store, "x", 0, NAN, &view) == BH_INVALID && bh_get(store, "x", 0, 0, NULL) == BH_INVALID);
  CHECK(bh_get(store, "\xff", 0, 0, &view) == BH_INVALID && strstr(bh_error(), "UTF-8"));
  CHECK(bh_put(store, "x", 7, 0, 2, shape, data, 0, NULL) == BH_INVALID && strstr(bh_error(), "dtype 7"));
  CHECK(bh_put(store, "x", BH_FLOAT64, 2, 2, shape, data, 0, NULL) == BH_INVALID);
  CHECK(bh_put(store, "x", BH_FLOAT64, 0, 33, shape, data, 0, NULL) == BH_INVALID);
  CHECK(bh_put(store, "x", BH_FLOAT64, 0, -1, shape, data, 0, NULL) == BH_INVALID);
  CHECK(bh_put(store, "x", BH_FLOAT64, 0, 2, shape, NULL, 0, NULL) == BH_INVALID);
  CHECK(bh_put(store, "x", BH_FLOAT64, 0, 2, NULL, data, 0, NULL) == BH_INVALID);
  shape[0] = -2;
  CHECK(bh_put(store, "x", BH_FLOAT64, 0, 2, shape, data, 0, NULL) == BH_INVALID && strstr(bh_error(), "axis 0"));
  shape[0] = INT64_MAX;
  CHECK(bh_put(store, "x", BH_FLOAT64, 0, 2, shape, data, 0, NULL) == BH_INVALID);
  shape[0] = (int64_t)1 << 40;
  CHECK(bh_create(store, BH_FLOAT64, 0, 2, shape, &draft, &place) == BH_FULL && draft == NULL && place == NULL);
  shape[0] = 2;
  CHECK(bh_stream(store, "full", 0, 1) == BH_INVALID && bh_stream(store, "full", -1, 0) == BH_INVALID);
  CHECK(bh_stream(store, "full", 1, 1) == BH_OK);
  CHECK(bh_put(store, "full", BH_FLOAT64, 0, 2, shape, data, 0, NULL) == BH_OK);
  CHECK(bh_put(store, "full", BH_FLOAT64, 0, 2, shape, data, 0, NULL) == BH_TIMEOUT);
  CHECK(bh_put(store, "full", BH_FLOAT64, 0, 2, shape, data, 0.05, NULL) == BH_TIMEOUT);
  CHECK(bh_close_name(store, "full") == BH_OK);
  CHECK(bh_put(store, "full", BH_FLOAT64, 0, 2, shape, data, 0, NULL) == BH_CLOSED);
  CHECK(bh_close_name(store, "nobody") == BH_UNKNOWN && bh_delete(store, "nobody") == BH_UNKNOWN);
  CHECK(bh_stream(store, "short", 1, 0) == BH_OK);
  for (int i = 0; i < 2; i++) CHECK(bh_put(store, "short", BH_FLOAT64, 0, 2, shape, data, 0, NULL) == BH_OK);
  CHECK(bh_get(store, "short", 1, 0, &view) == BH_VERSION_GONE && bh_wait(store, "short", 0, 0, &found) == BH_OK && found == 2);
  found = 2;
  CHECK(bh_put(store, "short", BH_FLOAT64, 0, 2, shape, data, 0, &found) == BH_OK && found == 2);
  found = 7;
  CHECK(bh_put(store, "short", BH_FLOAT64, 0, 2, shape, data, 0, &found) == BH_OK && found == 7);
  CHECK(bh_create(store, BH_FLOAT64, 0, 2, shape, &draft, &place) == BH_OK);
  bh_discard(draft);
  bh_discard(NULL);
  bh_release(NULL);
  bh_unwatch(NULL);
  bh_close(NULL);
  CHECK(bh_node(NULL) == -1 && bh_node(store) >= 0);
}

struct part {
  bh_store *store;
  int number;
};

static void *one_of_many(void *given) {
  struct part *part = given;
  char name[32];
  snprintf(name, sizeof name, "thread.%d", part->number);
  int64_t shape = 5000;
  for (int32_t i = 0; i < 50; i++) {
    bh_draft *draft;
    int32_t *data;
    bh_view view;
    CHECK(bh_create(part->store, BH_INT32, 0, 1, &shape, &draft, (void **)&data) == BH_OK);
    for (int64_t k = 0; k < shape; k++) data[k] = i;
    CHECK(bh_publish(draft, name, 0, NULL) == BH_OK);
    CHECK(bh_get(part->store, name, 0, 0, &view) == BH_OK && ((const int32_t *)view.data)[shape - 1] == i);
    bh_release(&view);
    CHECK(bh_get(part->store, "nobody", 0, 0.001, &view) == BH_TIMEOUT && strstr(bh_error(), "nobody"));
  }
  return NULL;
}

static void threads(bh_store *store) {
  pthread_t all[4];
  struct part parts[4];
  for (int i = 0; i < 4; i++) {
    parts[i] = (struct part){store, i};
    CHECK(pthread_create(&all[i], NULL, one_of_many, &parts[i]) == 0);
  }
  for (int i = 0; i < 4; i++) CHECK(pthread_join(all[i], NULL) == 0);
}

// Takes a large array, says so, and waits for what never comes.
static void hold(bh_store *store) {
  bh_view view;
  int64_t shape = 1, pid = getpid();
  CHECK(bh_get(store, "big", 0, LIMIT, &view) == BH_OK);
  CHECK(bh_put(store, "pid", BH_INT64, 0, 1, &shape, &pid, 0, NULL) == BH_OK);
  bh_wait(store, "never", 0, BH_FOREVER, NULL);
}

int main(int argc, char **argv) {
  bh_store *store;
  bh_status status = bh_open(&store);
  if (status != BH_OK) {
    printf("%d %s\n", status, bh_error());
    return store == NULL ? 3 : 1;
  }
  const char *part = argc > 1 ? argv[1] : "";
  if (!strcmp(part, "solve")) solve(store, argv[2], atoi(argv[3]), atoll(argv[4]), atoi(argv[5]));
  if (!strcmp(part, "follow")) follow(store, argv[2]);
  if (!strcmp(part, "types")) types(store);
  if (!strcmp(part, "errors")) errors(store);
  if (!strcmp(part, "threads")) threads(store);
  if (!strcmp(part, "hold")) hold(store);
  bh_close(store);
  printf("over\n");
  return 0;
}
