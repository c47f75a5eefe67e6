//go:build race

package sandbox

// raceEnabled says that the race detector's shadow memory, several times that
// of the program, counts against RLIMIT_DATA.
const raceEnabled = true
