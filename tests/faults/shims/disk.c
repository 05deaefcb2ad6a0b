/* disk: an LD_PRELOAD shim that stands between a program and the files below $DISK_ROOT.
 *
 * Three things, each optional: a journal of every operation ($DISK_JOURNAL, journal.c), from which a simulator builds
 * what a disk could hold had the power gone at any moment; faults on demand (faults.c); and a disk that lies: with
 * $DISK_LIES=sync a sync answers "done" and does nothing, with $DISK_LIES=names only the sync of a directory does.
 *
 * Files are told apart by inode, not by name: a program goes on writing to a file that was removed or renamed under it.
 * The real sync is never done. The simulated disk is the journal, and waiting for the real one would tell nothing.
 *
 * Not seen: writes through a mapping, so a writable one is noted ('M') and the simulator accepts it for -shm files only;
 * io_uring, sendfile, copy_file_range and dup2, which neither SQLite nor orchclient uses.
 */
#define _GNU_SOURCE
#include "disk.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FDS 4096
#define EXPORTED __attribute__((visibility("default")))

struct file {
  uint64_t inode;
  int is_directory, is_locked;
  char path[]; /* as it was opened; only for directories and faults */
};
static struct file *files[MOST_FDS]; /* not freed on close: another thread may be looking; a test leaks a few KiB */
static const char *root = "";
static size_t root_length;
static int lies_at_sync, lies_at_names;

__attribute__((constructor)) static void begin(void) {
  const char *directory = getenv("DISK_ROOT"), *into = getenv("DISK_JOURNAL"), *lies = getenv("DISK_LIES");
  if (!directory) return;
  if (into) journal_open(into);
  lies_at_sync = lies && !strcmp(lies, "sync");
  lies_at_names = lies && !strcmp(lies, "names");
  root_length = strlen(directory);
  root = directory;
}

/* --- names and descriptors ------------------------------------------------------------------------------------ */

/* Absolute path of a name, and whether it is ours. Relative to a directory descriptor: only AT_FDCWD is understood. */
static int ours(int dfd, const char *name, char out[PATH_MAX]) {
  if (!root_length) return 0;
  if (name[0] == '/') {
    if (snprintf(out, PATH_MAX, "%s", name) >= PATH_MAX) return 0;
  } else {
    char here[PATH_MAX];
    if (dfd != AT_FDCWD || syscall(SYS_getcwd, here, sizeof here) < 0) return 0;
    if (snprintf(out, PATH_MAX, "%s/%s", here, name) >= PATH_MAX) return 0;
  }
  return !strncmp(out, root, root_length) && (out[root_length] == '/' || !out[root_length]);
}
static struct file *of(int fd) { return fd >= 0 && fd < MOST_FDS ? files[fd] : NULL; }
static int exists(const char *path) {
  struct stat info;
  return !syscall(SYS_newfstatat, AT_FDCWD, path, &info, AT_SYMLINK_NOFOLLOW);
}
static uint64_t inode_of(const char *path) {
  struct stat info;
  return syscall(SYS_newfstatat, AT_FDCWD, path, &info, AT_SYMLINK_NOFOLLOW) ? 0 : info.st_ino;
}
static void remember(int fd, const char *path) {
  struct stat info;
  if (fd >= MOST_FDS || syscall(SYS_fstat, fd, &info)) return;
  struct file *file = malloc(sizeof *file + strlen(path) + 1);
  if (!file) abort();
  file->inode = info.st_ino;
  file->is_directory = S_ISDIR(info.st_mode), file->is_locked = 0;
  strcpy(file->path, path);
  files[fd] = file;
}
static int refused(int kind, const char *path) {
  struct verdict said = fault(kind, path);
  if (said.error) errno = said.error;
  return said.error;
}

/* --- opening and closing -------------------------------------------------------------------------------------- */

static int do_open(int dfd, const char *name, int flags, mode_t mode) {
  char path[PATH_MAX];
  if (!ours(dfd, name, path)) return syscall(SYS_openat, dfd, name, flags, mode);
  if (refused(OPEN, path)) return -1;
  names_begin();
  int was_there = exists(path);
  int fd = syscall(SYS_openat, dfd, name, flags, mode);
  if (fd >= 0) {
    remember(fd, path);
    if (!was_there) journal('C', inode_of(path), 0, path, "", 0);
    else if (flags & O_TRUNC) journal('T', inode_of(path), 0, path, "", 0);
  }
  names_end();
  return fd;
}
#define OPENS(name, dfd, parameters, extra)                                                        \
  EXPORTED int name parameters {                                                                   \
    mode_t mode = 0;                                                                               \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                           \
      va_list rest;                                                                                \
      va_start(rest, flags), mode = va_arg(rest, mode_t), va_end(rest);                            \
    }                                                                                              \
    return do_open(dfd, path, flags | (extra), mode);                                              \
  }
OPENS(open, AT_FDCWD, (const char *path, int flags, ...), 0)
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), O_LARGEFILE)
OPENS(openat, dfd, (int dfd, const char *path, int flags, ...), 0)
OPENS(openat64, dfd, (int dfd, const char *path, int flags, ...), O_LARGEFILE)
EXPORTED int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
EXPORTED int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags | O_LARGEFILE, 0); }
EXPORTED int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORTED int close(int fd) {
  if (journal_holds(fd)) return 0; /* whoever closes all descriptors does not mean this one */
  struct file *file = of(fd);
  if (file && file->is_locked) journal('G', file->inode, (uint64_t)fd << 8 | LOCK_UN, file->path, "", 0);
  if (file) files[fd] = NULL;
  return syscall(SYS_close, fd);
}

/* os.dup of Python is this fcntl. The others, locks among them, go through. */
static int do_control(int fd, int command, long argument) {
  int result = syscall(SYS_fcntl, fd, command, argument);
  if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0 && of(fd)) remember(result, of(fd)->path);
  return result;
}
#define CONTROLS(name)                                                                             \
  EXPORTED int name(int fd, int command, ...) {                                                    \
    va_list rest;                                                                                  \
    va_start(rest, command);                                                                       \
    long argument = va_arg(rest, long);                                                            \
    va_end(rest);                                                                                  \
    return do_control(fd, command, argument);                                                      \
  }
CONTROLS(fcntl)
CONTROLS(fcntl64)

/* --- content ---------------------------------------------------------------------------------------------------- */

static off_t place_of(int fd) {
  struct stat info;
  int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_APPEND) && !syscall(SYS_fstat, fd, &info)) return info.st_size;
  return syscall(SYS_lseek, fd, 0, SEEK_CUR);
}
static ssize_t raw_write(int fd, const void *data, size_t n, off_t at, int is_placed) {
  return is_placed ? syscall(SYS_pwrite64, fd, data, n, at) : syscall(SYS_write, fd, data, n);
}
static ssize_t do_write(int fd, const void *data, size_t n, off_t at, int is_placed) {
  struct file *file = of(fd);
  if (!file) return raw_write(fd, data, n, at, is_placed);
  struct verdict said = fault(WRITE, file->path);
  if (said.error) return errno = said.error, -1;
  if (said.halved) n = (n + 1) / 2;
  if (!is_placed) at = place_of(fd);
  ssize_t written = raw_write(fd, data, n, at, is_placed);
  if (written > 0) journal('W', file->inode, at, "", data, written);
  return written;
}
static ssize_t do_writev(int fd, const struct iovec *parts, int count, off_t at, int is_placed) {
  if (!of(fd)) return is_placed ? syscall(SYS_pwritev, fd, parts, count, at, 0) : syscall(SYS_writev, fd, parts, count);
  return count ? do_write(fd, parts[0].iov_base, parts[0].iov_len, at, is_placed) : 0; /* short, which POSIX allows */
}
EXPORTED ssize_t write(int fd, const void *data, size_t n) { return do_write(fd, data, n, 0, 0); }
EXPORTED ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return do_write(fd, data, n, at, 1); }
EXPORTED ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return do_write(fd, data, n, at, 1); }
EXPORTED ssize_t writev(int fd, const struct iovec *parts, int count) { return do_writev(fd, parts, count, 0, 0); }
EXPORTED ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  return do_writev(fd, parts, count, at, 1);
}
EXPORTED ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
  return do_writev(fd, parts, count, at, 1);
}

static int do_truncate(int fd, off_t size) {
  struct file *file = of(fd);
  if (file && refused(TRUNCATE, file->path)) return -1;
  int failed = syscall(SYS_ftruncate, fd, size);
  if (!failed && file) journal('T', file->inode, size, "", "", 0);
  return failed;
}
EXPORTED int ftruncate(int fd, off_t size) { return do_truncate(fd, size); }
EXPORTED int ftruncate64(int fd, off64_t size) { return do_truncate(fd, size); }

/* Allocation with zeros: to the simulator it is a longer file. Only the plain form is understood. */
static int do_allocate(int fd, int mode, off_t at, off_t n) {
  struct file *file = of(fd);
  struct stat info;
  if (!file) return syscall(SYS_fallocate, fd, mode, at, n);
  if (mode) return errno = EOPNOTSUPP, -1;
  if (refused(WRITE, file->path)) return -1;
  int failed = syscall(SYS_fallocate, fd, mode, at, n);
  if (!failed && !syscall(SYS_fstat, fd, &info)) journal('T', file->inode, info.st_size, "", "", 0);
  return failed;
}
EXPORTED int fallocate(int fd, int mode, off_t at, off_t n) { return do_allocate(fd, mode, at, n); }
EXPORTED int fallocate64(int fd, int mode, off64_t at, off64_t n) { return do_allocate(fd, mode, at, n); }
EXPORTED int posix_fallocate(int fd, off_t at, off_t n) { return do_allocate(fd, 0, at, n) ? errno : 0; }
EXPORTED int posix_fallocate64(int fd, off64_t at, off64_t n) { return do_allocate(fd, 0, at, n) ? errno : 0; }

static int do_sync(int fd, long number) {
  struct file *file = of(fd);
  if (!file) return syscall(number, fd);
  if (refused(SYNC, file->path)) {
    journal('F', file->inode, 0, "", "", 0); /* the kernel may have dropped the pages it could not write */
    return -1;
  }
  if (lies_at_sync || (lies_at_names && file->is_directory)) return 0;
  journal(file->is_directory ? 'D' : 'S', file->inode, 0, file->path, "", 0);
  return 0;
}
EXPORTED int fsync(int fd) { return do_sync(fd, SYS_fsync); }
EXPORTED int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }

static void *do_map(void *at, size_t n, int protection, int flags, int fd, off_t from) {
  struct file *file = of(fd);
  if (file && (protection & PROT_WRITE) && (flags & MAP_SHARED)) journal('M', file->inode, 0, file->path, "", 0);
  return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, from);
}
EXPORTED void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t from) {
  return do_map(at, n, protection, flags, fd, from);
}
EXPORTED void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t from) {
  return do_map(at, n, protection, flags, fd, from);
}

/* --- names on the disk ------------------------------------------------------------------------------------------ */

static int do_unlink(int dfd, const char *name, int flags) {
  char path[PATH_MAX];
  if (!ours(dfd, name, path)) return syscall(SYS_unlinkat, dfd, name, flags);
  if (refused(UNLINK, path)) return -1;
  names_begin();
  int failed = syscall(SYS_unlinkat, dfd, name, flags);
  if (!failed) journal('U', 0, 0, path, "", 0);
  names_end();
  return failed;
}
EXPORTED int unlink(const char *name) { return do_unlink(AT_FDCWD, name, 0); }
EXPORTED int rmdir(const char *name) { return do_unlink(AT_FDCWD, name, AT_REMOVEDIR); }
EXPORTED int unlinkat(int dfd, const char *name, int flags) { return do_unlink(dfd, name, flags); }

static int do_rename(int from_dfd, const char *from, int to_dfd, const char *to, unsigned flags) {
  char path[PATH_MAX], target[PATH_MAX];
  if (!ours(from_dfd, from, path) || !ours(to_dfd, to, target))
    return syscall(SYS_renameat2, from_dfd, from, to_dfd, to, flags);
  if (flags) return errno = EINVAL, -1;
  if (refused(RENAME, path)) return -1;
  names_begin();
  int failed = syscall(SYS_renameat2, from_dfd, from, to_dfd, to, 0);
  if (!failed) journal('R', 0, 0, path, target, strlen(target));
  names_end();
  return failed;
}
EXPORTED int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
EXPORTED int renameat(int from_dfd, const char *from, int to_dfd, const char *to) {
  return do_rename(from_dfd, from, to_dfd, to, 0);
}
EXPORTED int renameat2(int from_dfd, const char *from, int to_dfd, const char *to, unsigned flags) {
  return do_rename(from_dfd, from, to_dfd, to, flags);
}

EXPORTED int link(const char *from, const char *to) {
  char path[PATH_MAX], target[PATH_MAX];
  int is_ours = ours(AT_FDCWD, from, path) && ours(AT_FDCWD, to, target);
  if (is_ours && refused(MAKE, target)) return -1;
  names_begin();
  int failed = syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
  if (!failed && is_ours) journal('L', 0, 0, path, target, strlen(target));
  names_end();
  return failed;
}

static int do_make(int dfd, const char *name, mode_t mode, dev_t device, int is_directory) {
  char path[PATH_MAX];
  int is_ours = ours(dfd, name, path);
  if (is_ours && refused(MAKE, path)) return -1;
  names_begin();
  int failed = is_directory ? syscall(SYS_mkdirat, dfd, name, mode) : syscall(SYS_mknodat, dfd, name, mode, device);
  if (!failed && is_ours) journal(is_directory ? 'K' : 'C', inode_of(path), 0, path, "", 0);
  names_end();
  return failed;
}
EXPORTED int mkdir(const char *name, mode_t mode) { return do_make(AT_FDCWD, name, mode, 0, 1); }
EXPORTED int mkdirat(int dfd, const char *name, mode_t mode) { return do_make(dfd, name, mode, 0, 1); }
EXPORTED int mknod(const char *name, mode_t mode, dev_t device) { return do_make(AT_FDCWD, name, mode, device, 0); }
EXPORTED int mknodat(int dfd, const char *name, mode_t mode, dev_t device) { return do_make(dfd, name, mode, device, 0); }

/* --- these change nothing on the disk --------------------------------------------------------------------------- */

static int may_read(int fd) {
  struct file *file = of(fd);
  return !file || !refused(READ, file->path);
}
EXPORTED ssize_t read(int fd, void *into, size_t n) { return may_read(fd) ? syscall(SYS_read, fd, into, n) : -1; }
EXPORTED ssize_t pread(int fd, void *into, size_t n, off_t at) {
  return may_read(fd) ? syscall(SYS_pread64, fd, into, n, at) : -1;
}
EXPORTED ssize_t pread64(int fd, void *into, size_t n, off64_t at) {
  return may_read(fd) ? syscall(SYS_pread64, fd, into, n, at) : -1;
}
static int do_look(const char *name, struct stat *info, int flags) {
  char path[PATH_MAX];
  if (ours(AT_FDCWD, name, path) && refused(LOOK, path)) return -1;
  return syscall(SYS_newfstatat, AT_FDCWD, name, info, flags);
}
EXPORTED int stat(const char *name, struct stat *info) { return do_look(name, info, 0); }
EXPORTED int lstat(const char *name, struct stat *info) { return do_look(name, info, AT_SYMLINK_NOFOLLOW); }
EXPORTED int stat64(const char *name, struct stat64 *info) { return do_look(name, (struct stat *)info, 0); }
EXPORTED int lstat64(const char *name, struct stat64 *info) {
  return do_look(name, (struct stat *)info, AT_SYMLINK_NOFOLLOW);
}
EXPORTED int flock(int fd, int operation) {
  struct file *file = of(fd);
  if (file && !(operation & LOCK_UN) && refused(LOCK, file->path)) return -1;
  if (file && (operation & LOCK_UN)) journal('G', file->inode, (uint64_t)fd << 8 | LOCK_UN, file->path, "", 0);
  int failed = syscall(SYS_flock, fd, operation);
  if (!failed && file) file->is_locked = !(operation & LOCK_UN);
  if (!failed && file && file->is_locked) journal('G', file->inode, (uint64_t)fd << 8 | operation, file->path, "", 0);
  return failed;
}
