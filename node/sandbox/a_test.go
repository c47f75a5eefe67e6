package sandbox
import "testing"
func TestQuick(t *testing.T) {
	p := testPool(t, Options{})
	wantOK(t, runAll(t, p, builtin(t, "upper"), Task{Stdin: []byte("hello")})[0], "HELLO")
	r := runAll(t, p, builtin(t, "render"), Task{Stdin: []byte("0 0 64 64 1280 800")}, Task{Stdin: []byte("640 400 64 64 1280 800")}, Task{Stdin: []byte("900 400 64 64 1280 800")})
	for _, x := range r { t.Log(x.StdoutSize, x.Error, x.Duration) }
	r = runAll(t, p, testProgram(t, "wordcount-go"), Task{Stdin: []byte("a b a")},Task{Stdin: []byte("a b a")},Task{Stdin: []byte("a b a")})
	for _, x := range r { t.Log(x.StdoutSize, x.Error, x.Duration) }
	r = runAll(t, p, testProgram(t, "vectors"), Task{})
	t.Logf("%s", r[0].Stdout)
}
