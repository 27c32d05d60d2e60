! A program of a run, for the tests of the Fortran module: takes what Python put, puts arrays of each type and rank, follows a
! stream. Stops with an error at the first thing that is not as it should be.
program laws
  use bridgehead
  use, intrinsic :: iso_fortran_env, only: real32, real64, int32, int64
  implicit none
  type(bh_store) :: store
  type(bh_view) :: view
  type(bh_watch) :: watch
  integer :: status, i, steps
  integer(int64) :: version, found
  real(real64), pointer :: field(:, :)
  real(real32), pointer :: wrong(:, :)
  integer(int32), pointer :: numbers(:)
  real(real64) :: matrix(3, 4), cube(2, 3, 4)

  call bh_open(store, status)
  call check(status == BH_OK, "open")
  call check(bh_node(store) >= 0, "node")
  matrix = reshape([(real(i, real64), i = 1, 12)], [3, 4])
  cube = reshape([(real(i, real64), i = 1, 24)], [2, 3, 4])
  version = 0
  call bh_put(store, "matrix", matrix, status, version=version)
  call check(status == BH_OK .and. version == 1, "put")
  call bh_put(store, "cube", cube, status)
  call check(status == BH_OK, "put of three axes")
  call bh_put(store, "r32", real(matrix, real32), status)
  call bh_put(store, "i32", [1_int32, 2_int32, 3_int32], status)
  call bh_put(store, "i64", reshape([1_int64, 2_int64], [1, 2]), status)
  call check(status == BH_OK, "puts")

  call bh_get(store, "python.f", field, view, status, timeout=60.0_real64)
  call check(status == BH_OK, "get")
  call check(all(shape(field) == [200, 300]), "what was put in Fortran's order keeps its shape")
  call check(field(2, 1) == 1.0_real64 .and. field(1, 2) == 200.0_real64, "numbers in Fortran's order")
  call bh_show(view, wrong, status)
  call check(status == BH_MISMATCH .and. .not. associated(wrong), "numbers of another type are refused")
  call bh_get(store, "python.c", field, view, status, timeout=60.0_real64)
  call check(status == BH_OK, "get in C's order")
  call check(all(shape(field) == [300, 200]), "what was put in C's order has its axes reversed")
  call check(field(2, 1) == 1.0_real64 .and. field(1, 2) == 300.0_real64, "numbers in C's order")
  call bh_get(store, "python.f", numbers, view, status)
  call check(status == BH_MISMATCH, "another number of axes is refused")
  call bh_get(store, "nobody", numbers, view, status)
  call check(status == BH_UNKNOWN, "nobody")
  call check(index(bh_message(), "nobody") > 0, "the words of an error")
  call bh_get(store, "nobody", numbers, view, status, timeout=0.05_real64)
  call check(status == BH_TIMEOUT, "a time-out")
  call bh_wait(store, "matrix", found, status)
  call check(status == BH_OK .and. found == 1, "wait")

  call bh_stream(store, "steps", 2, .true., status)
  call check(status == BH_OK, "stream")
  do i = 1, 5
    matrix = i
    call bh_put(store, "steps", matrix, status, timeout=60.0_real64)
    call check(status == BH_OK, "a step")
  end do
  call bh_close_name(store, "steps", status)
  call check(status == BH_OK, "close")
  call bh_follow(store, "answers", watch, status)
  steps = 0
  do
    call bh_next(watch, view, status, timeout=60.0_real64)
    if (status == BH_END) exit
    call check(status == BH_OK, "next")
    call bh_show(view, numbers, status)
    call check(status == BH_OK, "show")
    steps = steps + numbers(1)
  end do
  call bh_unwatch(watch)
  call bh_release(view)
  call bh_delete(store, "matrix", status)
  call check(status == BH_OK, "delete")
  call bh_close(store)
  print '(a, i0)', "over ", steps

contains

  subroutine check(holds, what)
    logical, intent(in) :: holds
    character(len=*), intent(in) :: what
    if (holds) return
    print '(3a, i0, 2a)', "not as it should be: ", what, ", status ", status, ": ", bh_message()
    error stop 1
  end subroutine check
end program laws
