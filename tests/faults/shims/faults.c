/* Faults: the n-th operation of the named kinds fails, once or from then on. One rule at a time, set while running,
 * so that a test can break the disk under an open client, and mend it.
 */
#include "disk.h"
#include <errno.h>
#include <string.h>

enum { ONCE, FOR_EVER, SHORT_ONCE, SHORT_FOR_EVER, HALF };

static struct {
  int kinds, error, manner;
  long nth;
  char part[128]; /* of the path; empty: any file below the directory */
} rule;
static volatile long seen, hits;
static volatile int cut; /* a short write has happened: what follows fails */

void disk_fail(int kinds, const char *part, long nth, int error, int manner) {
  rule.kinds = 0; /* nothing is hit while the rule changes */
  seen = hits = cut = 0;
  rule.error = error, rule.manner = manner, rule.nth = nth;
  strncpy(rule.part, part, sizeof rule.part - 1);
  __sync_synchronize();
  rule.kinds = kinds;
}
void disk_mend(void) { rule.kinds = 0; }
long disk_seen(void) { return seen; } /* operations of the kinds so far */
long disk_hits(void) { return hits; } /* of these, how many were disturbed */

static struct verdict hit(int error, int halved) {
  __sync_add_and_fetch(&hits, 1);
  return (struct verdict){error, halved};
}

/* A disk that fills up writes a part and says so; only the next write is told why. HALF is no fault at all: POSIX
 * allows it at any time, and the caller has to write the rest. */
struct verdict fault(int kind, const char *path) {
  struct verdict fine = {0, 0};
  if (!(rule.kinds & kind) || !strstr(path, rule.part)) return fine;
  long n = __sync_add_and_fetch(&seen, 1);
  int is_short = rule.manner >= SHORT_ONCE && kind == WRITE;
  if (is_short && n == rule.nth) {
    cut = 1;
    return hit(0, 1);
  }
  if (is_short && rule.manner == HALF) return fine;
  if (is_short && cut) {
    cut = rule.manner == SHORT_FOR_EVER;
    return hit(rule.error, 0);
  }
  if (n == rule.nth || (n > rule.nth && rule.manner == FOR_EVER)) return hit(rule.error, 0);
  return fine;
}
