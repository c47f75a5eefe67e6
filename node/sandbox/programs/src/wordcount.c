// wordcount reads text from stdin and prints a line "COUNT WORD" for each word,
// sorted by the words' bytes. A word is a run of bytes that are not ASCII white
// space.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct entry {
  char *word;
  uint32_t length, hash;
  uint64_t count;
};

static struct entry *table;
static size_t slots, used;

static void die(const char *why) {
  fprintf(stderr, "wordcount: %s\n", why);
  exit(1);
}

static void *need(void *p) {
  if (!p) die("out of memory");
  return p;
}

// find returns the place of a word in the table, which always has an empty one.
static struct entry *find(const char *word, uint32_t length, uint32_t hash) {
  for (size_t i = hash;; i++) {
    struct entry *e = &table[i & (slots - 1)];
    if (!e->word) return e;
    if (e->hash == hash && e->length == length && !memcmp(e->word, word, length)) return e;
  }
}

static void grow(void) {
  struct entry *old = table;
  size_t n = slots;
  slots = n ? n * 2 : 1024;
  table = need(calloc(slots, sizeof *table));
  for (size_t i = 0; i < n; i++)
    if (old[i].word) *find(old[i].word, old[i].length, old[i].hash) = old[i];
  free(old);
}

static void add(const char *word, uint32_t length) {
  uint32_t hash = 2166136261u;
  for (uint32_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)word[i]) * 16777619u;
  if (used * 2 >= slots) grow();
  struct entry *e = find(word, length, hash);
  if (!e->word) {
    e->word = need(malloc(length));
    memcpy(e->word, word, length);
    e->length = length, e->hash = hash;
    used++;
  }
  e->count++;
}

static int space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static int compare(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  uint32_t n = x->length < y->length ? x->length : y->length;
  int order = memcmp(x->word, y->word, n);
  return order ? order : (x->length > y->length) - (x->length < y->length);
}

int main(void) {
  size_t size = 64 * 1024, held = 0;
  char *buf = need(malloc(size));
  grow();
  for (;;) {
    // buf[0, held) is the beginning of a word whose end is not read yet.
    if (held == size) buf = need(realloc(buf, size *= 2));
    ssize_t n = read(0, buf + held, size - held);
    if (n < 0) die("stdin cannot be read");
    size_t end = held + (size_t)n, start = 0;
    for (size_t i = held; i < end; i++)
      if (space(buf[i])) {
        if (i > start) add(buf + start, (uint32_t)(i - start));
        start = i + 1;
      }
    if (n == 0) {
      if (end > start) add(buf + start, (uint32_t)(end - start));
      break;
    }
    held = end - start;
    memmove(buf, buf + start, held);
  }
  size_t n = 0;
  for (size_t i = 0; i < slots; i++)
    if (table[i].word) table[n++] = table[i];
  qsort(table, n, sizeof *table, compare);
  for (size_t i = 0; i < n; i++) {
    printf("%llu ", (unsigned long long)table[i].count);
    fwrite(table[i].word, 1, table[i].length, stdout);
    putchar('\n');
  }
  return fflush(stdout) ? 1 : 0;
}
