package scheduler

import (
	"cmp"
	"slices"
)

// offer is what a device would take of a job.
type offer struct {
	device      int
	room        int // at most
	held, quota int // of the job: in flight now, and at most
	weight      float64
	take        int // what it gets
}

// spread decides how many of so many tasks each offer takes. If there are fewer
// tasks than room, what each device then holds is in proportion to its weight,
// as far as what it holds already and its room allow.
func spread(offers []offer, tasks int) {
	room := 0
	for i := range offers {
		offers[i].take = offers[i].room
		room += offers[i].room
	}
	if room <= tasks {
		return
	}
	level := waterLevel(offers, tasks)
	rest := make([]int, 0, len(offers))
	for i := range offers {
		offers[i].take = int(offers[i].at(level))
		tasks -= offers[i].take
		if offers[i].take < offers[i].room {
			rest = append(rest, i)
		}
	}
	// What rounding left goes to those that were cut most, one each; offers
	// come heaviest first, and so equal ones keep that order.
	slices.SortStableFunc(rest, func(a, b int) int {
		return cmp.Compare(offers[b].cut(level), offers[a].cut(level))
	})
	for _, i := range rest {
		if tasks <= 0 {
			break
		}
		offers[i].take++
		tasks--
	}
}

// at returns what the offer takes, fractions included, when each device is
// filled to level tasks a unit of weight.
func (o *offer) at(level float64) float64 {
	return min(max(level*o.weight-float64(o.held), 0), float64(o.room))
}

// cut returns what rounding took from the offer; one that is below what it
// holds already comes last.
func (o *offer) cut(level float64) float64 {
	return level*o.weight - float64(o.held) - float64(o.take)
}

// waterLevel returns the highest level at which the offers take no more than
// so many tasks, which are fewer than their room.
func waterLevel(offers []offer, tasks int) float64 {
	low, high := 0.0, 0.0
	for i := range offers {
		high = max(high, float64(offers[i].held+offers[i].room)/offers[i].weight)
	}
	for range 60 {
		middle := (low + high) / 2
		sum := 0.0
		for i := range offers {
			sum += offers[i].at(middle)
		}
		if sum <= float64(tasks) {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}
