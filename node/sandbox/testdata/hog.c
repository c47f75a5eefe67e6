// hog N: takes and touches N MiB, a MiB at a time. Refused memory ends it with
// status 3, or with 0 if there is a second argument.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
  int want = argc > 1 ? atoi(argv[1]) : 1 << 20;
  for (int i = 0; i < want; i++) {
    char *volatile p = malloc(1 << 20);
    if (!p) return argc > 2 ? 0 : 3;
    memset(p, i | 1, 1 << 20);
  }
  printf("%d MiB\n", want);
  return 0;
}
