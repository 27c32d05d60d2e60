! Follows the first block of a plate that another program publishes, and prints the mean temperature of each field.
program mean
  use bridgehead
  use, intrinsic :: iso_fortran_env, only: real64
  implicit none
  type(bh_store) :: store
  type(bh_watch) :: watch
  type(bh_view) :: view
  real(real64), pointer :: field(:, :, :)
  integer :: status

  call bh_open(store, status)
  if (status == BH_OK) call bh_follow(store, "field.0", watch, status)
  do while (status == BH_OK)
    call bh_next(watch, view, status, timeout=60.0_real64)
    if (status /= BH_OK) exit
    call bh_show(view, field, status)
    ! What C put as (2, rows, columns) has its axes the other way round here: the second step is the last index.
    if (status == BH_OK) print '(a, i0, a, f0.6)', "field ", view%version, ": mean ", sum(field(:, :, 2)) / size(field(:, :, 2))
  end do
  if (status /= BH_END) then
    print '(2a)', "cannot follow the plate: ", bh_message()
    error stop 1
  end if
  call bh_unwatch(watch)
  call bh_release(view)
  call bh_close(store)
end program mean
