// flood FD N: writes N KiB to a descriptor, each KiB numbered.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int fd = atoi(argv[1]);
  long count = atol(argv[2]);
  char block[1025];
  for (long i = 0; i < count; i++) {
    memset(block, '.', 1024);
    int n = snprintf(block, sizeof block, "%08ld", i);
    block[n] = '.';
    block[1023] = '\n';
    if (write(fd, block, 1024) != 1024) return 1;
  }
  return 0;
}
