// recurse: 2^60 calls without a loop; with an argument, recursion without end.
volatile int sink;
__attribute__((noinline)) static int twice(int n) {
  if (n == 0) return sink;
  return twice(n - 1) + twice(n - 1) + 1;
}
__attribute__((noinline)) static int deep(int n) { return sink < 0 ? 0 : deep(n + 1) + sink + n; }
int main(int argc, char **argv) {
  (void)argv;
  sink = argc > 1 ? deep(0) : twice(60);
  return 0;
}
