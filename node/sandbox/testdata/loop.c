// loop: never ends, unless its input begins with an n.
#include <unistd.h>
int main(void) {
  char c = 0;
  read(0, &c, 1);
  if (c == 'n') return 0;
  for (volatile int i = 0;;) i++;
}
