// nan: prints the bits of numbers that are none, as this machine makes them.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
static void show(const char *what, double v) {
  uint64_t bits;
  memcpy(&bits, &v, 8);
  printf("%s %016llx%s\n", what, (unsigned long long)bits, isnan(v) ? " nan" : "");
}
int main(void) {
  volatile double zero = 0, inf = INFINITY;
  show("0/0", zero / zero);
  show("inf-inf", inf - inf);
  show("inf*0", inf * zero);
  show("sqrt(-1)", sqrt(zero - 1));
  show("1/3", 1 / (zero + 3));
  show("sin(1)", sin(zero + 1));
  return 0;
}
