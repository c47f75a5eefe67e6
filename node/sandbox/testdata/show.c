// show: prints its arguments and environment, and the size of its input.
#include <stdio.h>
#include <unistd.h>
extern char **environ;
int main(int argc, char **argv) {
  for (int i = 0; i < argc; i++) printf("arg %d <%s>\n", i, argv[i]);
  for (char **e = environ; e && *e; e++) printf("env <%s>\n", *e);
  char c;
  long n = 0;
  while (read(0, &c, 1) == 1) n++;
  printf("stdin %ld\n", n);
  return 0;
}
