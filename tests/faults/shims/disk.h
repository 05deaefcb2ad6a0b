/* What the parts of the disk shim know of each other. See disk.c for what it is. */
#ifndef DISK_H
#define DISK_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Kinds of operation, as bits: a fault names the kinds that it may hit. */
enum { OPEN = 1, WRITE = 2, TRUNCATE = 4, SYNC = 8, UNLINK = 16, RENAME = 32, MAKE = 64, LOOK = 128, LOCK = 256, READ = 512 };

struct verdict {
  int error;  /* 0: go on */
  int halved; /* write only half, and succeed */
};

struct verdict fault(int kind, const char *path);

/* One record of the journal: what happened (a letter), to which inode, where; two texts or bytes. */
void journal(char what, uint64_t inode, uint64_t offset, const char *path, const void *data, size_t length);
void journal_open(const char *path);
int journal_holds(int fd);

/* Between the two no other process looks up or changes a name: who finds a new file writes after its record. */
void names_begin(void);
void names_end(void);

#endif
