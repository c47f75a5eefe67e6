// vectors: prints what a program can see of time and randomness, and what it is
// told about its descriptors. Its output is the test vector for other runtimes.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <wasi/api.h>

static void clocks(const char *when) {
  for (uint32_t id = 0; id < 4; id++) {
    __wasi_timestamp_t t = 0;
    int err = __wasi_clock_time_get(id, 1, &t);
    printf("%s clock %u: errno %d %llu\n", when, id, err, (unsigned long long)t);
  }
}

static void randoms(size_t n) {
  uint8_t b[100];
  int err = __wasi_random_get(b, n);
  printf("random %zu: errno %d ", n, err);
  for (size_t i = 0; i < n; i++) printf("%02x", b[i]);
  putchar('\n');
}

static void wait(const char *what, __wasi_subscription_t *subs, size_t n) {
  __wasi_event_t events[4];
  size_t ready = 0;
  memset(events, 0, sizeof events);
  int err = __wasi_poll_oneoff(subs, events, n, &ready);
  printf("poll %s: errno %d ready %zu", what, err, ready);
  for (size_t i = 0; i < ready; i++)
    printf(" (%llu type %d errno %d bytes %llu)", (unsigned long long)events[i].userdata, events[i].type,
           events[i].error, (unsigned long long)events[i].fd_readwrite.nbytes);
  putchar('\n');
}

static __wasi_subscription_t timer(uint64_t data, uint64_t ns, uint32_t id, int absolute) {
  __wasi_subscription_t s;
  memset(&s, 0, sizeof s);
  s.userdata = data;
  s.u.tag = __WASI_EVENTTYPE_CLOCK;
  s.u.u.clock.id = id;
  s.u.u.clock.timeout = ns;
  s.u.u.clock.flags = absolute ? __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME : 0;
  return s;
}

static __wasi_subscription_t stream(uint64_t data, uint8_t tag, uint32_t fd) {
  __wasi_subscription_t s;
  memset(&s, 0, sizeof s);
  s.userdata = data;
  s.u.tag = tag;
  s.u.u.fd_read.file_descriptor = fd;
  return s;
}

static void polls(void) {
  __wasi_subscription_t second[] = {timer(1, 1000000000, 1, 0)};
  wait("one second", second, 1);
  clocks("then");
  __wasi_subscription_t both[] = {timer(2, 5000000, 0, 0), timer(3, 3000000, 1, 0), timer(4, 3000000, 1, 0)};
  wait("5 ms, 3 ms, 3 ms", both, 3);
  clocks("then");
  __wasi_subscription_t until[] = {timer(5, 1767225600000000000u + 5000000000u, 0, 1)};
  wait("until second 5", until, 1);
  clocks("then");
  __wasi_subscription_t mixed[] = {timer(6, 1000000, 1, 0), stream(7, __WASI_EVENTTYPE_FD_READ, 0),
                                   stream(8, __WASI_EVENTTYPE_FD_WRITE, 1), stream(9, __WASI_EVENTTYPE_FD_READ, 9)};
  wait("1 ms or streams", mixed, 4);
  clocks("then");
  wait("nothing", mixed, 0);
}

int main(void) {
  clocks("first");
  __wasi_timestamp_t res = 0;
  int err = __wasi_clock_res_get(0, &res);
  printf("resolution: errno %d %llu\n", err, (unsigned long long)res);
  randoms(1);
  randoms(31);
  randoms(40);
  randoms(0);
  randoms(100);
  polls();
  for (uint32_t fd = 0; fd < 4; fd++) {
    __wasi_fdstat_t stat;
    memset(&stat, 0xff, sizeof stat);
    err = __wasi_fd_fdstat_get(fd, &stat);
    printf("fd %u: errno %d type %d flags %d rights %llx\n", fd, err, stat.fs_filetype, stat.fs_flags,
           (unsigned long long)stat.fs_rights_base);
  }
  __wasi_filesize_t at = 0;
  printf("seek: errno %d\n", __wasi_fd_seek(1, 0, __WASI_WHENCE_CUR, &at));
  return 0;
}
