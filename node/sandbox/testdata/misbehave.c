// misbehave: does what the first letter of its input says: t(rap), e(xit 3),
// l(oop), f(lood stdout), m(emory without end); anything else is copied to
// stdout.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
  static char buf[4096];
  ssize_t n = read(0, buf, sizeof buf);
  switch (n > 0 ? buf[0] : 0) {
  case 't':
    __builtin_trap();
  case 'e':
    fputs("a last word\n", stderr);
    exit(3);
  case 'l':
    for (volatile int i = 0;;) i++;
  case 'f':
    for (;;) write(1, buf, sizeof buf);
  case 'm':
    for (;;) {
      char *volatile p = malloc(1 << 20);
      if (!p) abort();
      memset(p, 1, 1 << 20);
    }
  }
  write(1, buf, n);
  return 0;
}
