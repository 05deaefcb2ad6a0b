/* wallclock: an LD_PRELOAD shim that steps the wall clock of a running program, and only the wall clock.
 *
 * A real step (an operator, NTP, a virtual machine that slept) leaves CLOCK_MONOTONIC alone, and so does this. Debian's
 * libfaketime does not serve: CPython's time.sleep() dies with EINVAL when its clock jumps.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long ahead_s;

/* For programs that nobody tells: from the beginning so many seconds ahead. */
__attribute__((constructor)) static void begin(void) {
  const char *ahead = getenv("WALLCLOCK_AHEAD_S");
  if (ahead) ahead_s = atol(ahead);
}

void wallclock_set_ahead(long seconds) { ahead_s = seconds; }

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead_s;
  return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *into) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (into) *into = exact.tv_sec;
  return exact.tv_sec;
}
