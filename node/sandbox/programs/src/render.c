// render computes a tile of a picture: the Mandelbrot set in the valley of the
// seahorses, coloured smoothly, nine samples a pixel. It reads
// "X Y WIDTH HEIGHT TOTAL_WIDTH TOTAL_HEIGHT" (pixels; X and Y from the top
// left) from stdin and writes WIDTH × HEIGHT × 3 bytes: red, green and blue of
// each pixel, row by row. A tile of 64 × 64 takes some 10 to 40 ms.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LIMIT = 700, COLOURS = 1024, SIDE = 3 };

static const double centre_x = -0.743643, centre_y = 0.131826, span = 0.0105;
static float palette[COLOURS][3];

static void paint(void) {
  const double phase[3] = {0.00, 0.12, 0.28};
  for (int i = 0; i < COLOURS; i++)
    for (int c = 0; c < 3; c++)
      palette[i][c] = (float)(0.5 - 0.5 * cos(6.283185307179586 * ((double)i / COLOURS + phase[c])));
}

// add adds the colour of the point (x, y) to rgb.
static void add(double x, double y, float *rgb) {
  double a = 0, b = 0, aa = 0, bb = 0;
  int n = 0;
  while (n < LIMIT && aa + bb < 256) {
    b = 2 * a * b + y;
    a = aa - bb + x;
    aa = a * a, bb = b * b;
    n++;
  }
  if (n == LIMIT) return;
  double smooth = n + 1 - log2(0.5 * log2(aa + bb));
  double at = sqrt(smooth > 0 ? smooth : 0) * 110;
  const float *colour = palette[(int)at & (COLOURS - 1)];
  for (int c = 0; c < 3; c++) rgb[c] += colour[c];
}

int main(void) {
  long x0, y0, w, h, tw, th;
  if (scanf("%ld %ld %ld %ld %ld %ld", &x0, &y0, &w, &h, &tw, &th) != 6 || w < 1 || h < 1 || tw < 1 ||
      th < 1 || w > 16384 || h > 16384 || x0 < 0 || y0 < 0 || x0 + w > tw || y0 + h > th) {
    fputs("render: stdin must be \"X Y WIDTH HEIGHT TOTAL_WIDTH TOTAL_HEIGHT\", the tile within the picture\n", stderr);
    return 1;
  }
  paint();
  double step = span / (double)tw;
  unsigned char *row = malloc((size_t)w * 3);
  if (!row) return 1;
  for (long j = 0; j < h; j++) {
    for (long i = 0; i < w; i++) {
      float rgb[3] = {0, 0, 0};
      for (int s = 0; s < SIDE * SIDE; s++)
        add(centre_x + ((double)(x0 + i) - tw * 0.5 + (s % SIDE + 0.5) / SIDE) * step,
            centre_y + ((double)(y0 + j) - th * 0.5 + (s / SIDE + 0.5) / SIDE) * step, rgb);
      for (int c = 0; c < 3; c++) row[3 * i + c] = (unsigned char)(rgb[c] / (SIDE * SIDE) * 255 + 0.5f);
    }
    if (fwrite(row, 3, (size_t)w, stdout) != (size_t)w) return 1;
  }
  return fflush(stdout) ? 1 : 0;
}
