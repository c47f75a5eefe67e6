package state

// chunkLen is how many tasks share a chunk of numbers.
const chunkLen = 1024

// failedBit marks, in a task's number, that it failed for good.
const failedBit = 1 << 31

// maxNumber bounds the numbers of results, so that number+1 leaves the failed
// bit free.
const maxNumber = 1<<31 - 2

// numbers holds, for each task of a job, the number of its result plus one and
// whether it failed; 0 while the task is open. A chunk is made when the first
// of its tasks ends and grows with need, so that inputs that are only said to
// exist cost nothing.
type numbers struct {
	chunks [][]uint32
}

func (n *numbers) get(i uint32) uint32 {
	k, at := int(i/chunkLen), int(i%chunkLen)
	if k >= len(n.chunks) || at >= len(n.chunks[k]) {
		return 0
	}
	return n.chunks[k][at]
}

func (n *numbers) set(i, value uint32) {
	k, at := int(i/chunkLen), int(i%chunkLen)
	for k >= len(n.chunks) {
		n.chunks = append(n.chunks, nil)
	}
	if at >= len(n.chunks[k]) {
		grown := make([]uint32, chunkSize(at+1))
		copy(grown, n.chunks[k])
		n.chunks[k] = grown
	}
	n.chunks[k][at] = value
}

// chunkSize returns the size of a chunk that must hold need numbers.
func chunkSize(need int) int {
	size := 8
	for size < need {
		size *= 2
	}
	return size
}

// eachFailed calls f with every task that failed for good; f may reset it.
func (n *numbers) eachFailed(f func(i uint32)) {
	for k, chunk := range n.chunks {
		for at, v := range chunk {
			if v&failedBit != 0 {
				f(uint32(k*chunkLen + at))
			}
		}
	}
}
