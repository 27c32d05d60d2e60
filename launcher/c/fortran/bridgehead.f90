! Bridgehead for programs in Fortran: arrays under names, shared with the other programs and Python tasks of a run. Compile this
! file with the program and link it with -lbridgehead. It stands on the C library, whose header says what each call does.
!
! An array of shape (n, m) is put in Fortran's order and arrives in Python as an array of shape (n, m), and the other way round:
! what Python put in Fortran's order keeps its shape. What was put in C's order (numpy's own) lies in memory as Fortran's with the
! axes reversed, and arrives as that: shape (n, m) in Python is (m, n) here.
module bridgehead
  use, intrinsic :: iso_c_binding
  use, intrinsic :: iso_fortran_env, only: real32, real64, int32, int64
  implicit none
  private

  ! What came of a call; bh_message() has the words.
  integer, parameter, public :: BH_OK = 0, BH_END = 1, BH_TIMEOUT = 2, BH_UNKNOWN = 3, BH_VERSION_GONE = 4, BH_CLOSED = 5, &
    BH_BROKEN = 6, BH_LOST = 7, BH_FULL = 8, BH_NOT_AN_ARRAY = 9, BH_INVALID = 10, BH_NO_RUN = 11, BH_REFUSED = 12, &
    BH_GONE = 13, BH_INTERNAL = 14
  ! The array has other numbers or other axes than the variable that it is to be shown by: only the module says so.
  integer, parameter, public :: BH_MISMATCH = 100
  ! A timeout: as long as it takes.
  real(real64), parameter, public :: BH_FOREVER = -1.0_real64
  ! What the numbers of a view are.
  integer(c_int32_t), parameter, public :: BH_INT32 = 26884, BH_INT64 = 26888, BH_FLOAT32 = 26116, BH_FLOAT64 = 26120
  integer(c_int32_t), parameter :: FORTRAN_ORDER = 1

  ! A process's part in its run.
  type, public :: bh_store
    private
    type(c_ptr) :: handle = c_null_ptr
  end type bh_store

  ! A name that is followed.
  type, public :: bh_watch
    private
    type(c_ptr) :: handle = c_null_ptr
  end type bh_watch

  ! An array that was taken. Its numbers stay where they are until bh_release, and are for reading only.
  type, bind(c), public :: bh_view
    type(c_ptr) :: data = c_null_ptr
    integer(c_int64_t) :: bytes = 0
    integer(c_int64_t) :: version = 0
    integer(c_int32_t) :: dtype = 0
    integer(c_int32_t) :: order = 0
    integer(c_int32_t) :: ndim = 0
    integer(c_int32_t) :: reserved = 0
    integer(c_int64_t) :: shape(32) = 0
    integer(c_int64_t) :: strides(32) = 0
    type(c_ptr) :: hold = c_null_ptr
  end type bh_view

  public :: bh_open, bh_close, bh_node, bh_put, bh_get, bh_next, bh_show, bh_release, bh_stream, bh_close_name, bh_delete
  public :: bh_wait, bh_follow, bh_unwatch, bh_message

  ! Adds a version of a name: call bh_put(store, name, array, status [, timeout, version])
  interface bh_put
    module procedure put_real32_1, put_real32_2, put_real32_3, put_real64_1, put_real64_2, put_real64_3, &
      put_int32_1, put_int32_2, put_int32_3, put_int64_1, put_int64_2, put_int64_3
  end interface bh_put

  ! Takes a version, the newest one if none is given, and shows it:
  ! call bh_get(store, name, array, view, status [, timeout, version])
  interface bh_get
    module procedure get_view, get_real32_1, get_real32_2, get_real32_3, get_real64_1, get_real64_2, get_real64_3, &
      get_int32_1, get_int32_2, get_int32_3, get_int64_1, get_int64_2, get_int64_3
  end interface bh_get

  ! Shows a view's numbers by a pointer, without a copy: call bh_show(view, array, status)
  interface bh_show
    module procedure show_real32_1, show_real32_2, show_real32_3, show_real64_1, show_real64_2, show_real64_3, &
      show_int32_1, show_int32_2, show_int32_3, show_int64_1, show_int64_2, show_int64_3
  end interface bh_show

  interface
    integer(c_int) function c_open(store) bind(c, name="bh_open")
      import
      type(c_ptr), intent(out) :: store
    end function
    subroutine c_close(store) bind(c, name="bh_close")
      import
      type(c_ptr), value :: store
    end subroutine
    integer(c_int32_t) function c_node(store) bind(c, name="bh_node")
      import
      type(c_ptr), value :: store
    end function
    integer(c_int) function c_put(store, name, dtype, order, ndim, shape, data, timeout, version) bind(c, name="bh_put")
      import
      type(c_ptr), value :: store, data
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int32_t), value :: dtype, order, ndim
      integer(c_int64_t), intent(in) :: shape(*)
      real(c_double), value :: timeout
      integer(c_int64_t), intent(inout) :: version
    end function
    integer(c_int) function c_get(store, name, version, timeout, view) bind(c, name="bh_get")
      import
      type(c_ptr), value :: store
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int64_t), value :: version
      real(c_double), value :: timeout
      type(bh_view), intent(inout) :: view
    end function
    subroutine c_release(view) bind(c, name="bh_release")
      import
      type(bh_view), intent(inout) :: view
    end subroutine
    integer(c_int) function c_stream(store, name, keep, block) bind(c, name="bh_stream")
      import
      type(c_ptr), value :: store
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int32_t), value :: keep, block
    end function
    integer(c_int) function c_close_name(store, name) bind(c, name="bh_close_name")
      import
      type(c_ptr), value :: store
      character(kind=c_char), intent(in) :: name(*)
    end function
    integer(c_int) function c_delete(store, name) bind(c, name="bh_delete")
      import
      type(c_ptr), value :: store
      character(kind=c_char), intent(in) :: name(*)
    end function
    integer(c_int) function c_wait(store, name, version, timeout, found) bind(c, name="bh_wait")
      import
      type(c_ptr), value :: store
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int64_t), value :: version
      real(c_double), value :: timeout
      integer(c_int64_t), intent(out) :: found
    end function
    integer(c_int) function c_follow(store, name, start, watch) bind(c, name="bh_follow")
      import
      type(c_ptr), value :: store
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int64_t), value :: start
      type(c_ptr), intent(out) :: watch
    end function
    integer(c_int) function c_next(watch, timeout, view) bind(c, name="bh_next")
      import
      type(c_ptr), value :: watch
      real(c_double), value :: timeout
      type(bh_view), intent(inout) :: view
    end function
    subroutine c_unwatch(watch) bind(c, name="bh_unwatch")
      import
      type(c_ptr), value :: watch
    end subroutine
    type(c_ptr) function c_error() bind(c, name="bh_error")
      import
    end function
    integer(c_size_t) function c_length(text) bind(c, name="strlen")
      import
      type(c_ptr), value :: text
    end function
  end interface

contains

  ! Comes into the run that started this process's program.
  subroutine bh_open(store, status)
    type(bh_store), intent(out) :: store
    integer, intent(out) :: status
    status = c_open(store%handle)
  end subroutine bh_open

  ! Leaves the run. Views stay good until they are released.
  subroutine bh_close(store)
    type(bh_store), intent(inout) :: store
    call c_close(store%handle)
    store%handle = c_null_ptr
  end subroutine bh_close

  ! The number of the node, from 0.
  integer function bh_node(store)
    type(bh_store), intent(in) :: store
    bh_node = c_node(store%handle)
  end function bh_node

  ! What was wrong with the last call that did not give BH_OK.
  function bh_message() result(text)
    character(len=:), allocatable :: text
    character(kind=c_char), pointer :: chars(:)
    type(c_ptr) :: words
    integer :: i
    words = c_error()
    call c_f_pointer(words, chars, [c_length(words)])
    allocate (character(len=size(chars)) :: text)
    do i = 1, size(chars)
      text(i:i) = chars(i)
    end do
  end function bh_message

  ! Makes a name a stream that keeps its newest versions (0: all); where block is true, a put into a full one waits.
  subroutine bh_stream(store, name, keep, block, status)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer, intent(in) :: keep
    logical, intent(in) :: block
    integer, intent(out) :: status
    status = c_stream(store%handle, c_name(name), int(keep, c_int32_t), merge(1_c_int32_t, 0_c_int32_t, block))
  end subroutine bh_stream

  ! Says that no version of a name follows.
  subroutine bh_close_name(store, name, status)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer, intent(out) :: status
    status = c_close_name(store%handle, c_name(name))
  end subroutine bh_close_name

  ! Forgets a name with all its versions.
  subroutine bh_delete(store, name, status)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer, intent(out) :: status
    status = c_delete(store%handle, c_name(name))
  end subroutine bh_delete

  ! Waits until a version is there (any, if none is given), as long as it takes if no timeout is given: its number.
  subroutine bh_wait(store, name, found, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int64), intent(out) :: found
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    found = 0
    status = c_wait(store%handle, c_name(name), number(version), seconds(timeout, BH_FOREVER), found)
  end subroutine bh_wait

  ! Follows a name, from a version on if one is given; to be given back with bh_unwatch.
  subroutine bh_follow(store, name, watch, status, start)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    type(bh_watch), intent(out) :: watch
    integer, intent(out) :: status
    integer(int64), intent(in), optional :: start
    status = c_follow(store%handle, c_name(name), number(start), watch%handle)
  end subroutine bh_follow

  ! The next version of a name that is followed, as long as it takes if no timeout is given. BH_END: none will come.
  subroutine bh_next(watch, view, status, timeout)
    type(bh_watch), intent(in) :: watch
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    call c_release(view)
    status = c_next(watch%handle, seconds(timeout, BH_FOREVER), view)
  end subroutine bh_next

  ! Follows a name no longer.
  subroutine bh_unwatch(watch)
    type(bh_watch), intent(inout) :: watch
    call c_unwatch(watch%handle)
    watch%handle = c_null_ptr
  end subroutine bh_unwatch

  ! Gives a view back: its numbers may go, and pointers that show them must not be used any more.
  subroutine bh_release(view)
    type(bh_view), intent(inout) :: view
    call c_release(view)
  end subroutine bh_release

  ! Takes a version of a name; what the view had before is given back. Without a timeout it is not waited for.
  subroutine get_view(store, name, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    call c_release(view)
    status = c_get(store%handle, c_name(name), number(version), seconds(timeout, 0.0_real64), view)
  end subroutine get_view

  ! A text as C has it.
  function c_name(name) result(chars)
    character(len=*), intent(in) :: name
    character(kind=c_char) :: chars(len_trim(name) + 1)
    integer :: i
    do i = 1, len_trim(name)
      chars(i) = name(i:i)
    end do
    chars(len_trim(name) + 1) = c_null_char
  end function c_name

  integer(c_int64_t) function number(version)
    integer(int64), intent(in), optional :: version
    number = 0
    if (present(version)) number = version
  end function number

  real(c_double) function seconds(timeout, otherwise)
    real(real64), intent(in), optional :: timeout
    real(real64), intent(in) :: otherwise
    seconds = otherwise
    if (present(timeout)) seconds = timeout
  end function seconds

  subroutine put_any(store, name, dtype, shape, data, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(c_int32_t), intent(in) :: dtype
    integer(c_int64_t), intent(in) :: shape(:)
    type(c_ptr), intent(in) :: data
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    integer(c_int64_t) :: put
    put = number(version)
    status = c_put(store%handle, c_name(name), dtype, FORTRAN_ORDER, size(shape, kind=c_int32_t), shape, data, &
      seconds(timeout, BH_FOREVER), put)
    if (present(version)) version = put
  end subroutine put_any

  ! Whether a view has such numbers and axes, and its shape as Fortran sees it.
  subroutine look(view, dtype, shape, status)
    type(bh_view), intent(in) :: view
    integer(c_int32_t), intent(in) :: dtype
    integer(c_int64_t), intent(out) :: shape(:)
    integer, intent(out) :: status
    status = BH_MISMATCH
    shape = 0
    if (view%dtype /= dtype .or. view%ndim /= size(shape)) return
    status = BH_OK
    shape = view%shape(1:size(shape))
    if (view%order /= FORTRAN_ORDER) shape = shape(size(shape):1:-1)
  end subroutine look

  subroutine put_real32_1(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real32), intent(in), contiguous, target :: array(:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_FLOAT32, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_real32_1

  subroutine get_real32_1(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(out) :: array(:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_real32_1(view, array, status)
  end subroutine get_real32_1

  subroutine show_real32_1(view, array, status)
    type(bh_view), intent(in) :: view
    real(real32), pointer, intent(out) :: array(:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(1)
    nullify (array)
    call look(view, BH_FLOAT32, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_real32_1

  subroutine put_real32_2(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real32), intent(in), contiguous, target :: array(:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_FLOAT32, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_real32_2

  subroutine get_real32_2(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(out) :: array(:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_real32_2(view, array, status)
  end subroutine get_real32_2

  subroutine show_real32_2(view, array, status)
    type(bh_view), intent(in) :: view
    real(real32), pointer, intent(out) :: array(:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(2)
    nullify (array)
    call look(view, BH_FLOAT32, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_real32_2

  subroutine put_real32_3(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real32), intent(in), contiguous, target :: array(:,:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_FLOAT32, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_real32_3

  subroutine get_real32_3(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(out) :: array(:,:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_real32_3(view, array, status)
  end subroutine get_real32_3

  subroutine show_real32_3(view, array, status)
    type(bh_view), intent(in) :: view
    real(real32), pointer, intent(out) :: array(:,:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(3)
    nullify (array)
    call look(view, BH_FLOAT32, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_real32_3

  subroutine put_real64_1(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real64), intent(in), contiguous, target :: array(:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_FLOAT64, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_real64_1

  subroutine get_real64_1(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(out) :: array(:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_real64_1(view, array, status)
  end subroutine get_real64_1

  subroutine show_real64_1(view, array, status)
    type(bh_view), intent(in) :: view
    real(real64), pointer, intent(out) :: array(:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(1)
    nullify (array)
    call look(view, BH_FLOAT64, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_real64_1

  subroutine put_real64_2(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real64), intent(in), contiguous, target :: array(:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_FLOAT64, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_real64_2

  subroutine get_real64_2(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(out) :: array(:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_real64_2(view, array, status)
  end subroutine get_real64_2

  subroutine show_real64_2(view, array, status)
    type(bh_view), intent(in) :: view
    real(real64), pointer, intent(out) :: array(:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(2)
    nullify (array)
    call look(view, BH_FLOAT64, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_real64_2

  subroutine put_real64_3(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real64), intent(in), contiguous, target :: array(:,:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_FLOAT64, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_real64_3

  subroutine get_real64_3(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(out) :: array(:,:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_real64_3(view, array, status)
  end subroutine get_real64_3

  subroutine show_real64_3(view, array, status)
    type(bh_view), intent(in) :: view
    real(real64), pointer, intent(out) :: array(:,:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(3)
    nullify (array)
    call look(view, BH_FLOAT64, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_real64_3

  subroutine put_int32_1(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int32), intent(in), contiguous, target :: array(:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_INT32, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_int32_1

  subroutine get_int32_1(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int32), pointer, intent(out) :: array(:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_int32_1(view, array, status)
  end subroutine get_int32_1

  subroutine show_int32_1(view, array, status)
    type(bh_view), intent(in) :: view
    integer(int32), pointer, intent(out) :: array(:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(1)
    nullify (array)
    call look(view, BH_INT32, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_int32_1

  subroutine put_int32_2(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int32), intent(in), contiguous, target :: array(:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_INT32, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_int32_2

  subroutine get_int32_2(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int32), pointer, intent(out) :: array(:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_int32_2(view, array, status)
  end subroutine get_int32_2

  subroutine show_int32_2(view, array, status)
    type(bh_view), intent(in) :: view
    integer(int32), pointer, intent(out) :: array(:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(2)
    nullify (array)
    call look(view, BH_INT32, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_int32_2

  subroutine put_int32_3(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int32), intent(in), contiguous, target :: array(:,:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_INT32, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_int32_3

  subroutine get_int32_3(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int32), pointer, intent(out) :: array(:,:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_int32_3(view, array, status)
  end subroutine get_int32_3

  subroutine show_int32_3(view, array, status)
    type(bh_view), intent(in) :: view
    integer(int32), pointer, intent(out) :: array(:,:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(3)
    nullify (array)
    call look(view, BH_INT32, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_int32_3

  subroutine put_int64_1(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int64), intent(in), contiguous, target :: array(:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_INT64, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_int64_1

  subroutine get_int64_1(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int64), pointer, intent(out) :: array(:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_int64_1(view, array, status)
  end subroutine get_int64_1

  subroutine show_int64_1(view, array, status)
    type(bh_view), intent(in) :: view
    integer(int64), pointer, intent(out) :: array(:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(1)
    nullify (array)
    call look(view, BH_INT64, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_int64_1

  subroutine put_int64_2(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int64), intent(in), contiguous, target :: array(:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_INT64, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_int64_2

  subroutine get_int64_2(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int64), pointer, intent(out) :: array(:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_int64_2(view, array, status)
  end subroutine get_int64_2

  subroutine show_int64_2(view, array, status)
    type(bh_view), intent(in) :: view
    integer(int64), pointer, intent(out) :: array(:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(2)
    nullify (array)
    call look(view, BH_INT64, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_int64_2

  subroutine put_int64_3(store, name, array, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int64), intent(in), contiguous, target :: array(:,:,:)
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(inout), optional :: version
    call put_any(store, name, BH_INT64, shape(array, kind=c_int64_t), c_loc(array), status, timeout, version)
  end subroutine put_int64_3

  subroutine get_int64_3(store, name, array, view, status, timeout, version)
    type(bh_store), intent(in) :: store
    character(len=*), intent(in) :: name
    integer(int64), pointer, intent(out) :: array(:,:,:)
    type(bh_view), intent(inout) :: view
    integer, intent(out) :: status
    real(real64), intent(in), optional :: timeout
    integer(int64), intent(in), optional :: version
    nullify (array)
    call get_view(store, name, view, status, timeout, version)
    if (status == BH_OK) call show_int64_3(view, array, status)
  end subroutine get_int64_3

  subroutine show_int64_3(view, array, status)
    type(bh_view), intent(in) :: view
    integer(int64), pointer, intent(out) :: array(:,:,:)
    integer, intent(out) :: status
    integer(c_int64_t) :: lengths(3)
    nullify (array)
    call look(view, BH_INT64, lengths, status)
    if (status == BH_OK) call c_f_pointer(view%data, array, lengths)
  end subroutine show_int64_3

end module bridgehead
