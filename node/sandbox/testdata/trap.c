// trap: executes unreachable.
#include <stdio.h>
int main(void) {
  puts("before the trap");
  fflush(stdout);
  __builtin_trap();
}
