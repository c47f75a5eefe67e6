// outputs N: reads its input and writes N bytes that depend on nothing else. An
// input that begins with "fail" gets half of them, a word, and status 3.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  static unsigned char block[64 << 10];
  size_t size = argc > 1 ? strtoul(argv[1], 0, 10) : 0;
  uint64_t x = 0xcbf29ce484222325;
  int fails = 0;
  ssize_t n;
  for (size_t at = 0; (n = read(0, block, sizeof block)) > 0; at += n) {
    if (at == 0) fails = n >= 4 && memcmp(block, "fail", 4) == 0;
    for (ssize_t i = 0; i < n; i++) x = (x ^ block[i]) * 0x100000001b3;
  }
  if (fails) size /= 2;
  while (size > 0) {
    size_t some = size < sizeof block ? size : sizeof block;
    for (size_t i = 0; i < some; i++) {
      if (i % 8 == 0) x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      block[i] = x >> i % 8 * 8;
    }
    size -= some;
    if (size == 0) block[some - 1] = '\n';
    if (write(1, block, some) != (ssize_t)some) return 1;
  }
  if (!fails) return 0;
  write(2, "as it was told\n", 15);
  return 3;
}
