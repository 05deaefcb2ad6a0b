/* Stops a program K machine instructions after it took a given lock byte, for as long as a test wants.
 *
 *     stepper START PROGRAM [ARGUMENT...]
 *
 * runs PROGRAM as its child, says "ready" and takes orders on stdin, a line each, answered by a line on stdout:
 *
 *     watch K   from now on look at every system call of the child             -> watching
 *               ... it locked the byte START for writing and made K steps      -> stopped
 *               ... it unlocked the byte after N < K steps, and runs freely    -> passed N
 *     go        let a stopped child run freely                                 -> running
 *
 * The child needs neither a recompiled library nor a preload: it is traced (ptrace(2)) from the order to the stop
 * and runs as always before and afterwards. Only its main thread is looked at. A system call counts as one step.
 * Exit status: 77 when the system does not allow tracing, 1 when the child ended too early, else 0 at the end of stdin.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#if !defined(__x86_64__) || !defined(__linux__)
#error "the registers and the code of a system call are those of Linux on x86-64"
#endif

enum { REFUSED = 77, ENDED = 1, SYSCALL_STOP = SIGTRAP | 0x80 };
static const long SYSCALL_CODE = 0x050f; /* 0f 05, the lowest byte first */

static pid_t child;
static long first_byte;

static void say(const char *text) {
  puts(text);
  fflush(stdout);
}

static void require(long result) {
  if (result >= 0) return;
  fprintf(stderr, "stepper: %s\n", strerror(errno));
  exit(errno == EPERM || errno == EACCES || errno == ENOSYS ? REFUSED : ENDED);
}

static long order(enum __ptrace_request request, long data) {
  return ptrace(request, child, NULL, (void *)data);
}

/* Resume the child and wait until it stops for us. Signals of its own are passed on. */
static int resume(enum __ptrace_request how) {
  int status, signal = 0;
  for (;;) {
    require(order(how, signal));
    require(waitpid(child, &status, __WALL));
    if (!WIFSTOPPED(status)) exit(ENDED);
    signal = WSTOPSIG(status);
    if (signal == SIGTRAP || signal == SYSCALL_STOP) return signal;
  }
}

static struct user_regs_struct registers(void) {
  struct user_regs_struct found;
  require(order(PTRACE_GETREGS, (long)&found));
  return found;
}

static long word(unsigned long long address) { return ptrace(PTRACE_PEEKDATA, child, (void *)address, NULL); }

/* Whether a call of fcntl(2) sets a lock of this type on the byte; see struct flock in fcntl(2). */
static int is_lock(const struct user_regs_struct *call, long number, short type) {
  if (number != SYS_fcntl || call->rsi != F_SETLK) return 0;
  return (short)word(call->rdx) == type && word(call->rdx + offsetof(struct flock, l_start)) == first_byte &&
         word(call->rdx + offsetof(struct flock, l_len)) == 1;
}

static void run_to_the_lock(void) {
  for (;;) {
    resume(PTRACE_SYSCALL);
    struct user_regs_struct at = registers();
    /* rax is 0 only when a call that succeeded returns: on the way in it is -ENOSYS. */
    if (at.rax == 0 && is_lock(&at, (long)at.orig_rax, F_WRLCK)) return;
  }
}

static int is_about_to_unlock(void) {
  struct user_regs_struct at = registers();
  return (word(at.rip) & 0xffff) == SYSCALL_CODE && is_lock(&at, (long)at.rax, F_UNLCK);
}

/* The steps made: fewer than wanted when the child is about to unlock the byte. */
static long step(long wanted) {
  long made = 0;
  while (made < wanted && !is_about_to_unlock()) {
    resume(PTRACE_SINGLESTEP);
    made++;
  }
  return made;
}

static void attach(void) {
  int status;
  require(order(PTRACE_SEIZE, PTRACE_O_TRACESYSGOOD));
  require(order(PTRACE_INTERRUPT, 0));
  require(waitpid(child, &status, __WALL));
  if (!WIFSTOPPED(status)) exit(ENDED);
}

static void detach(void) { require(order(PTRACE_DETACH, 0)); }

static void watch(long wanted) {
  char passed[32];
  attach();
  say("watching");
  run_to_the_lock();
  long made = step(wanted);
  if (made < wanted) {
    detach();
    snprintf(passed, sizeof passed, "passed %ld", made);
  }
  say(made < wanted ? passed : "stopped");
}

static void start(char **program) {
  child = fork();
  require(child);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp(program[0], program);
    _exit(127);
  }
}

int main(int count, char **arguments) {
  char line[64];
  if (count < 3) return 2;
  first_byte = atol(arguments[1]);
  start(arguments + 2);
  attach(); /* tells at once whether it is allowed */
  detach();
  say("ready");
  while (fgets(line, sizeof line, stdin)) {
    long wanted;
    if (sscanf(line, "watch %ld", &wanted) == 1) {
      watch(wanted);
    } else {
      detach();
      say("running");
    }
  }
  kill(child, SIGKILL);
  waitpid(child, NULL, __WALL);
  return 0;
}
