// noop reads nothing and prints nothing: what a task costs by itself.
int main(void) { return 0; }
