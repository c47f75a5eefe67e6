// dirty: fails if any of its memory was not zero at its start, and leaves none
// of it so. The argument is the number of MiB that it takes besides its own.
#include <stdlib.h>
static volatile unsigned char own[100 * 1024];
static int soil(volatile unsigned char *p, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (p[i]) return 0;
    p[i] = 0xaa;
  }
  return 1;
}
int main(int argc, char **argv) {
  size_t pages = argc > 1 ? (size_t)atoi(argv[1]) << 4 : 0;
  if (!soil(own, sizeof own)) return 1;
  size_t at = __builtin_wasm_memory_grow(0, pages);
  if (at == (size_t)-1) return 2;
  return soil((unsigned char *)(at << 16), pages << 16) ? 0 : 1;
}
