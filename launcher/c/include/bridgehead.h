// Bridgehead for programs in C: arrays under names, shared with the other programs and Python tasks of a run.
//
// A process that a run started opens the store once, puts arrays under names and gets those of others; large ones lie in
// shared memory of the node and are read there without a copy. Functions give BH_OK or say what was wrong; bh_error() has
// the words. Threads may share what bh_open gives; a view, a draft and a watch are one thread's at a time. A forked child
// opens the store anew. The guide's page on C and Fortran shows how it is used.
//
// Written by cbindgen from launcher/c/src: change it there.

#ifndef BRIDGEHEAD_H
#define BRIDGEHEAD_H

#include <stdint.h>

// Axes that an array may have.
#define BH_MAX_NDIM 32

// A timeout: as long as it takes.
#define BH_FOREVER -1.0

// The last axis varies fastest, as in C.
#define BH_C_ORDER 0

// The first axis varies fastest, as in Fortran.
#define BH_FORTRAN_ORDER 1

// Truth values of one byte.
#define BH_BOOL 25089

// int8_t
#define BH_INT8 26881

// int16_t
#define BH_INT16 26882

// int32_t
#define BH_INT32 26884

// int64_t
#define BH_INT64 26888

// uint8_t
#define BH_UINT8 29953

// uint16_t
#define BH_UINT16 29954

// uint32_t
#define BH_UINT32 29956

// uint64_t
#define BH_UINT64 29960

// Floating numbers of two bytes.
#define BH_FLOAT16 26114

// float
#define BH_FLOAT32 26116

// double
#define BH_FLOAT64 26120

// long double, where it has 16 bytes.
#define BH_LONG_DOUBLE 26128

// float complex
#define BH_COMPLEX64 25352

// double complex
#define BH_COMPLEX128 25360

// long double complex, where it has 32 bytes.
#define BH_LONG_COMPLEX 25376

// What came of a call. The numbers stay as they are; new ones may be added.
typedef enum bh_status {
  // It was done.
  BH_OK = 0,
  // No version follows: the name was closed, or the run has ended.
  BH_END = 1,
  // It did not come in time, or nobody made room in time.
  BH_TIMEOUT = 2,
  // There is no such name or version, and waiting was not asked for.
  BH_UNKNOWN = 3,
  // The stream has dropped this version.
  BH_VERSION_GONE = 4,
  // The name was closed: use another one, or delete it first.
  BH_CLOSED = 5,
  // The task that wrote the name has failed.
  BH_BROKEN = 6,
  // The only copy went down with its node.
  BH_LOST = 7,
  // The store has no room.
  BH_FULL = 8,
  // The value is no plain array: Python put another object.
  BH_NOT_AN_ARRAY = 9,
  // An argument is wrong.
  BH_INVALID = 10,
  // This process was started by no run.
  BH_NO_RUN = 11,
  // The run does not let this process take part: its program does not run on this node.
  BH_REFUSED = 12,
  // The run is gone, or the connection to it.
  BH_GONE = 13,
  // A mistake of the library.
  BH_INTERNAL = 14,
} bh_status;

// An array that is being filled.
typedef struct bh_draft bh_draft;

// What keeps the numbers of a view where they are.
typedef struct bh_hold bh_hold;

// A process's part in its run.
typedef struct bh_store bh_store;

// A name that is followed.
typedef struct bh_watch bh_watch;

// An array that was taken. Its numbers are for reading, and stay where they are until bh_release; they are aligned to 64 bytes.
typedef struct bh_view {
  // The numbers.
  const void *data;
  // Bytes of all of them.
  uint64_t bytes;
  // The version.
  int64_t version;
  // One of BH_INT32, BH_FLOAT64 and so on.
  int32_t dtype;
  // BH_C_ORDER or BH_FORTRAN_ORDER.
  int32_t order;
  // Axes.
  int32_t ndim;
  // 0.
  int32_t reserved;
  // Length along each axis; 0 beyond the last.
  int64_t shape[32];
  // Bytes from one number to the next along each axis; 0 beyond the last.
  int64_t strides[32];
  // The library's own; null where nothing was taken.
  struct bh_hold *hold;
} bh_view;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What was wrong with this thread's last call that did not give `BH_OK`, in words; an empty text before there was one. The
// text stays until the thread's next call of this library.
const char *bh_error(void);

// Comes into the run that started this process's program, as its variables (BRIDGEHEAD_SOCKET and others) say. *store is to
// be closed with bh_close.
enum bh_status bh_open(struct bh_store **store);

// Leaves the run. Views, drafts and watches that are still there stay good until they are released; null does nothing.
void bh_close(struct bh_store *store);

// The number of the node, from 0, that this process runs on; -1 for null.
int32_t bh_node(const struct bh_store *store);

// Makes a name a stream, which ends with this process's task and keeps its newest `keep` versions (0: all). With `block` not 0 a
// put into a full stream waits until its oldest version was taken; else that one is dropped.
enum bh_status bh_stream(const struct bh_store *store,
                         const char *name,
                         int32_t keep,
                         int32_t block);

// Says that no version of a name follows.
enum bh_status bh_close_name(const struct bh_store *store, const char *name);

// Forgets a name with all its versions. Views of them stay.
enum bh_status bh_delete(const struct bh_store *store, const char *name);

// Waits until a version is there (0: any), up to `timeout` seconds (below 0: as long as it takes). Its number goes to *found,
// which may be null.
enum bh_status bh_wait(const struct bh_store *store,
                       const char *name,
                       int64_t wanted,
                       double timeout,
                       int64_t *found);

// Follows a name, which need not be there yet, from version `start` on (0: from the oldest that is there). *watch is to be given
// back with bh_unwatch: a stream whose puts wait for room waits for all who follow it.
enum bh_status bh_follow(const struct bh_store *store,
                         const char *name,
                         int64_t start,
                         struct bh_watch **watch);

// The next version of a name that is followed, once it is there: up to `timeout` seconds (below 0: as long as it takes). BH_END
// says that none will come. The view is to be given back with bh_release; where BH_OK does not come, it holds none. After
// BH_LOST and BH_NOT_AN_ARRAY the next call goes on with the version behind.
enum bh_status bh_next(struct bh_watch *watch,
                       double timeout,
                       struct bh_view *view);

// Follows a name no longer; null does nothing.
void bh_unwatch(struct bh_watch *watch);

// Adds a version of a name: an array of `ndim` axes with `shape` lengths, whose numbers of type `dtype` lie at `data` without
// gaps, the last axis varying fastest (BH_C_ORDER) or the first one (BH_FORTRAN_ORDER). They are copied, and may be changed
// afterwards. In a stream that blocks, it waits for room up to `timeout` seconds (below 0: as long as it takes).
//
// *number, which may be null, is the version's on return. 0 before, the next one is given. Another number, beyond the newest
// one, is kept; one that was put before changes nothing, so that a program that runs again may put again what it has put.
enum bh_status bh_put(const struct bh_store *store,
                      const char *name,
                      int32_t dtype,
                      int32_t order,
                      int32_t ndim,
                      const int64_t *shape,
                      const void *data,
                      double timeout,
                      int64_t *number);

// An array in the store of this node, to be filled at *data and then published without a copy by bh_publish, or given up by
// bh_discard. What is in it at first is undefined.
enum bh_status bh_create(const struct bh_store *store,
                         int32_t dtype,
                         int32_t order,
                         int32_t ndim,
                         const int64_t *shape,
                         struct bh_draft **draft,
                         void **data);

// Makes a draft a version of a name, without a copy; timeout and number are those of bh_put. The draft is gone on return, also
// where that is not BH_OK, and its numbers must not be written any more.
enum bh_status bh_publish(struct bh_draft *draft,
                          const char *name,
                          double timeout,
                          int64_t *number);

// Gives up a draft; null does nothing.
void bh_discard(struct bh_draft *draft);

// Takes a version of a name (0: the newest), without a copy where it lies on this node. Where it is not there yet it is waited
// for, up to `timeout` seconds (0: not at all; below: as long as it takes). The view is to be given back with bh_release;
// where BH_OK does not come, it holds none.
enum bh_status bh_get(const struct bh_store *store,
                      const char *name,
                      int64_t wanted,
                      double timeout,
                      struct bh_view *view);

// Gives a view back: its numbers may go. A view that holds none, and null, do nothing.
void bh_release(struct bh_view *view);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BRIDGEHEAD_H */
