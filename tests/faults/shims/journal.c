/* The journal: everything that was asked of the disk, in order, appended to one file by all processes and threads.
 *
 * Every record goes out as one O_APPEND write, which the kernel does not interleave: so the order of records is the
 * order of events, also between processes. It is written after the operation and before the caller gets control back,
 * so whatever a lock keeps apart is kept apart here too.
 */
#define _GNU_SOURCE
#include "disk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x314b5344u /* "DSK1" */
#define HIGH_FD 900       /* out of the way of the program's own descriptors */

static int journal_fd = -1;

struct record {
  uint32_t magic, path_length, data_length, who_and_what;
  uint64_t inode, offset, monotonic_ns;
};

void journal_open(const char *path) {
  int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) abort();
  journal_fd = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
  syscall(SYS_close, fd);
}

/* A lock of the process, not of the descriptor: a child that is forked meanwhile does not have it. */
static void lock_names(short type) {
  int kept = errno;
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};
  while (journal_fd >= 0 && syscall(SYS_fcntl, journal_fd, F_SETLKW, &lock) && errno == EINTR) continue;
  errno = kept;
}
void names_begin(void) { lock_names(F_WRLCK); }
void names_end(void) { lock_names(F_UNLCK); }

int journal_holds(int fd) { return fd == journal_fd && fd >= 0; }

void journal(char what, uint64_t inode, uint64_t offset, const char *path, const void *data, size_t length) {
  if (journal_fd < 0) return;
  int kept = errno;
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  uint32_t who_and_what = (uint32_t)syscall(SYS_getpid) << 8 | (uint8_t)what;
  struct record head = {MAGIC, strlen(path), length, who_and_what, inode, offset, now.tv_sec * 1000000000ull + now.tv_nsec};
  struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path_length}, {(void *)data, length}};
  if (syscall(SYS_writev, journal_fd, parts, 3) != (long)(sizeof head + head.path_length + length)) abort();
  errno = kept;
}

/* For the program under test: a note of its own at this moment, such as "the call returned". */
void disk_note(const char *text) { journal('A', 0, 0, "", text, strlen(text)); }
