"""Libraries in C, preloaded into a study, that let the system's calls answer differently."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from cases import Skipped
from running import Room

SWITCH = "TUNER_FAULT_SWITCH"
"""Names a file: once it is there, what the library does begins."""
_HEAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int on(void) {
    const char *file = getenv("TUNER_FAULT_SWITCH");
    return file && syscall(SYS_access, file, F_OK) == 0;
}
"""
CLOCK_SET_BACK = _HEAD + r"""
static long offset_s(void) { return on() ? -86400 : 0; }
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += offset_s();
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec += offset_s();
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""
"""A wall clock that is a day behind; nobody else's changes."""
READ_ONLY = _HEAD + r"""
static int refused(const char *path) {
    if (!strstr(path, "studies") || !on()) return 0;
    errno = EROFS;
    return 1;
}
static int refused_file(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return refused(path);
}
#define WRITES (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)
#define OPENS(name) int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
    if ((flags & WRITES) && refused(path)) return -1; \
    return syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode); }
OPENS(open)
OPENS(open64)
#define OPENS_AT(name) int name(int at, const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
    if ((flags & WRITES) && refused(path)) return -1; \
    return syscall(SYS_openat, at, path, flags | O_LARGEFILE, mode); }
OPENS_AT(openat)
OPENS_AT(openat64)
int mkdir(const char *path, mode_t mode) {
    return refused(path) ? -1 : syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
#define PWRITES(name) ssize_t name(int file, const void *data, size_t size, off_t at) { \
    return refused_file(file) ? -1 : syscall(SYS_pwrite64, file, data, size, at); }
PWRITES(pwrite)
PWRITES(pwrite64)
ssize_t write(int file, const void *data, size_t size) {
    return refused_file(file) ? -1 : syscall(SYS_write, file, data, size);
}
"""
"""A disk that the kernel makes read-only after an error: for files that are open already, too."""


def preload(room: Room, source: str) -> Path:
    """Let all that a room starts from now on run with a library; gives the file that switches it on.

    Raises:
        Skipped: no C compiler.
    """
    if shutil.which("cc") is None:
        raise Skipped("needs a C compiler")
    text, library, switch = (room.folder / n for n in ("fault.c", "fault.so", "switch"))
    text.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, text, "-ldl"], check=True)
    room.environment |= {"LD_PRELOAD": str(library), SWITCH: str(switch)}
    return switch
