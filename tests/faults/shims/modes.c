/* modes: an LD_PRELOAD shim that notes with which mode every file and directory below $MODES_ROOT comes into being.
 *
 * One line in $MODES_LOG for each call: what, the mode that the new file had when the call returned, the path. Looking
 * at a file later, from outside, would miss a mode that is mended a moment after. Also noted: every change of the
 * umask, which belongs to all threads of a process and to the agent.
 */
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
#include <unistd.h>

static void note(const char *what, unsigned mode, const char *path) {
  const char *into = getenv("MODES_LOG");
  if (!into) return;
  int kept = errno;
  char line[4200];
  int length = snprintf(line, sizeof line, "%s %04o %s\n", what, mode, path);
  int fd = syscall(SYS_openat, AT_FDCWD, into, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0 || syscall(SYS_write, fd, line, (size_t)length) != length) abort();
  syscall(SYS_close, fd);
  errno = kept;
}

static int is_ours(const char *path) {
  const char *root = getenv("MODES_ROOT");
  return root && path && !strncmp(path, root, strlen(root));
}

static int exists(const char *path) {
  struct stat info;
  int kept = errno, found = !lstat(path, &info);
  errno = kept;
  return found;
}

static void note_new(const char *what, const char *path) {
  struct stat info;
  if (lstat(path, &info)) abort();
  note(what, info.st_mode & 07777, path);
}

static int opened(int dfd, const char *path, int flags, mode_t mode) {
  int is_new = (flags & O_CREAT) && is_ours(path) && !exists(path);
  int fd = syscall(SYS_openat, dfd, path, flags, mode);
  if (fd >= 0 && is_new) note_new("open", path);
  return fd;
}

#define MODE_OF(flags)                 \
  mode_t mode = 0;                     \
  if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list rest;                      \
    va_start(rest, flags);             \
    mode = va_arg(rest, mode_t);       \
    va_end(rest);                      \
  }

int open(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dfd, const char *path, int flags, ...) { MODE_OF(flags) return opened(dfd, path, flags, mode); }
int openat64(int dfd, const char *path, int flags, ...) { MODE_OF(flags) return opened(dfd, path, flags | O_LARGEFILE, mode); }

int mknodat(int dfd, const char *path, mode_t mode, dev_t device) {
  int done = syscall(SYS_mknodat, dfd, path, mode, (unsigned)device);
  if (!done && is_ours(path)) note_new("mknod", path);
  return done;
}
int mknod(const char *path, mode_t mode, dev_t device) { return mknodat(AT_FDCWD, path, mode, device); }

int mkdirat(int dfd, const char *path, mode_t mode) {
  int done = syscall(SYS_mkdirat, dfd, path, mode);
  if (!done && is_ours(path)) note_new("mkdir", path);
  return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

mode_t umask(mode_t mask) {
  note("umask", mask, "");
  return syscall(SYS_umask, mask);
}
