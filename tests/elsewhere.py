"""The program on a system that has less than Linux, in all of its processes.

In: a folder for a module that Python loads at each start. Out: the variables of a call. Guarantees: what is
taken away is gone before anything of the program, or of what it uses, is loaded: in the parent, the fork
server and its children. The lists are those of typeshed, which is compared with Python on macOS by tests of
its own, and `preadv`, which Python's documents don't promise there.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness import REPOSITORY

_GONE = {
    "os": """
        EFD_CLOEXEC EFD_NONBLOCK EFD_SEMAPHORE GRND_NONBLOCK GRND_RANDOM MFD_ALLOW_SEALING
        MFD_CLOEXEC O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE POSIX_FADV_DONTNEED
        POSIX_FADV_NOREUSE POSIX_FADV_NORMAL POSIX_FADV_RANDOM POSIX_FADV_SEQUENTIAL
        POSIX_FADV_WILLNEED P_PIDFD RTLD_DEEPBIND RWF_APPEND RWF_DSYNC RWF_HIPRI RWF_NOWAIT
        RWF_SYNC SCHED_BATCH SCHED_IDLE SCHED_RESET_ON_FORK SPLICE_F_MORE SPLICE_F_MOVE
        SPLICE_F_NONBLOCK ST_APPEND ST_MANDLOCK ST_NOATIME ST_NODEV ST_NODIRATIME ST_NOEXEC
        ST_RELATIME ST_SYNCHRONOUS ST_WRITE XATTR_CREATE XATTR_REPLACE XATTR_SIZE_MAX
        copy_file_range eventfd eventfd_read eventfd_write fdatasync getrandom getresgid
        getresuid getxattr listxattr memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate
        preadv pwritev removexattr sched_getaffinity sched_getparam sched_getscheduler
        sched_rr_get_interval sched_setaffinity sched_setparam sched_setscheduler setresgid
        setresuid setxattr splice waitid waitid_result
    """,
    "select": """
        EPOLLERR EPOLLET EPOLLHUP EPOLLIN EPOLLOUT EPOLLPRI EPOLL_CLOEXEC POLLRDHUP epoll
    """,
    "fcntl": """
        F_ADD_SEALS F_GETPIPE_SZ F_GET_SEALS F_NOTIFY F_SETPIPE_SZ F_SETSIG
    """,
    "signal": """
        SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait
        sigwaitinfo
    """,
    "resource": """
        RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_OFILE RLIMIT_RTPRIO RLIMIT_SIGPENDING RUSAGE_THREAD
        prlimit
    """,
    "socket": """
        AF_NETLINK AF_PACKET MSG_CMSG_CLOEXEC SOCK_CLOEXEC SOCK_NONBLOCK SO_PASSCRED SO_PEERCRED
    """,
    "errno": """
        EBADFD ECOMM ENOKEY ENOMEDIUM ENONET EREMOTEIO EUCLEAN
    """,
    "time": """
        CLOCK_BOOTTIME CLOCK_TAI pthread_getcpuclockid
    """,
}
_SYMBOLS = "inotify_add_watch inotify_init inotify_init1 inotify_rm_watch prctl renameat2 syncfs"
_SITE = """
import ctypes, errno, importlib, os, sys

for name, gone in {gone!r}.items():
    for of in (importlib.import_module(name), sys.modules.get("posix" if name == "os" else "_" + name)):
        for attribute in gone.split():
            if hasattr(of, attribute):
                delattr(of, attribute)
sys.platform = "darwin"

_symbol = ctypes.CDLL.__getattr__
def _known_symbol(library, name):
    if name in {symbols!r}.split():
        raise AttributeError(name)
    return _symbol(library, name)
ctypes.CDLL.__getattr__ = _known_symbol

def _no_proc(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
        if os.fsdecode(arguments[0]).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), arguments[0])
sys.addaudithook(_no_proc)

import fcntl
fcntl.F_FULLFSYNC = 51  # which nothing here knows

_seek = os.lseek
def _seek_as_on_apfs(handle, offset, how):
    if how == os.SEEK_DATA:
        offset = _seek(handle, offset, os.SEEK_HOLE)
    return _seek(handle, offset, how)
os.lseek = _seek_as_on_apfs
"""


_WITHOUT_FORK = """
import os, sys
for attribute in ("fork", "posix_spawn", "posix_spawnp", "forkpty", "geteuid", "getuid", "pread", "preadv"):
    delattr(os, attribute)
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
"""


def as_windows(folder: Path) -> dict[str, str]:
    """Without the modules that aren't there, and with as much of `os` as takes to see it."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_WITHOUT_FORK)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}


def as_macos(folder: Path) -> dict[str, str]:
    """As far as Python tells: without the calls of Linux, and without /proc. What only macOS has isn't there
    either, but for `F_FULLFSYNC`, which is refused, as by some file systems; and SEEK_DATA leads from within
    data to the next data (lseek in the manual of gnulib)."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE.format(gone=_GONE, symbols=_SYMBOLS))
    return {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
