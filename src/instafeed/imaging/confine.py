"""Takes from a process, for good, what a decoder has no use for: other files, the network, other programs and processes.

By Landlock and a seccomp filter, which need no privilege. Where the kernel or a container's profile refuses one of them,
the process is confined by what remains: limits of memory, time and size always hold.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of `_REFUSED`, and AUDIT_ARCH_*."""
_CLONE = 56, 220
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_FIRST_OF_X32 = 0x40000000
_REFUSED = {
    # The network, and whoever listens on this machine.
    "socket": (41, 198),
    "socketpair": (53, 199),
    # Other programs. A process that is no thread is refused below.
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    # Other processes: their lives, memory, descriptors and limits.
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
    # Out of the group that is killed with it, or into a namespace where it is root.
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "unshare": (272, 97),
    # Round all of this.
    "io_uring_setup": (425, 425),
}

# The same on all machines.
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_VERSION = 1
_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _MAKE_REG, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 8, 1 << 14
# All rights over files that each version of Landlock knows; later ones add none over ordinary files.
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}


def confine(source: str, out: str) -> None:
    """From now on this process may read `source` and code, make files in `out`, and use what it has open.

    Raises:
        OSError: one of the two is not there.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    _restrict_files(libc, source, out)
    if platform.machine() in _MACHINES:
        _refuse_calls(libc, *_MACHINES[platform.machine()])


def _restrict_files(libc: ctypes.CDLL, source: str, out: str) -> None:
    """Linux's Documentation/userspace-api/landlock.rst."""
    call = libc.syscall
    version = call(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return
    rights = _RIGHTS[min(version, max(_RIGHTS))]
    ruleset = call(_LANDLOCK_CREATE_RULESET, struct.pack("=Q", rights), ctypes.c_size_t(8), 0)
    allowances = {path: _READ_FILE | _READ_DIR for path in sys.path if os.path.isdir(path)}  # noqa: PTH112 -- no import
    allowances[source] = _READ_FILE
    # Pillow opens what it writes for reading too.
    allowances[out] = _READ_FILE | _WRITE_FILE | _MAKE_REG | _TRUNCATE
    for path, allowed in allowances.items():
        place = os.open(path, os.O_PATH)  # opens no FIFO, and waits for none
        call(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", allowed & rights, place), 0)
        os.close(place)
    call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _refuse_calls(libc: ctypes.CDLL, column: int, arch: int) -> None:
    """Refused calls fail with EPERM. Linux's Documentation/userspace-api/seccomp_filter.rst."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    arch_at, number_at, flags_at = 4, 0, 16  # in struct seccomp_data
    numbers = [number for row in _REFUSED.values() if (number := row[column]) is not None]
    allow = 8 + len(numbers)
    refuse, unknown = allow + 1, allow + 2
    steps: list[tuple[int, int, int, int]] = []

    def step(code: int, value: int, yes: int | None = None, no: int | None = None) -> None:
        """`yes` and `no` are the steps to go on with; without them it is the next."""
        after = len(steps) + 1
        steps.append((code, (yes or after) - after, (no or after) - after, value))

    step(load, arch_at)
    step(equal, arch, no=refuse)
    step(load, number_at)
    step(at_least, _FIRST_OF_X32, yes=refuse)  # the same calls under other numbers
    for number in numbers:
        step(equal, number, yes=refuse)
    step(equal, _CLONE3, yes=unknown)  # its flags cannot be seen here: the C library then tries clone
    step(equal, _CLONE[column], no=allow)
    step(load, flags_at)
    step(any_bit, _CLONE_THREAD, no=refuse)
    for verdict in (0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS):
        step(answer, verdict)
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in steps))
    # struct sock_fprog, padded as C does.
    filter_ = struct.pack("@HP", len(steps), ctypes.addressof(program))
    libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), filter_)
