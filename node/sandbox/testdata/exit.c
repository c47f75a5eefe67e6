// exit N: writes a line to both streams and ends with status N.
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  puts("before the end");
  fputs("a last word\n", stderr);
  exit(argc > 1 ? atoi(argv[1]) : 0);
}
